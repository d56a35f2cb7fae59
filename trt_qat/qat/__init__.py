"""Everything that needs torch and ModelOpt: models, sparsify, placement, quantize, finetune, export."""
