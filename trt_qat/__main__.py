"""``python -m trt_qat`` is the command ``trt-qat``."""

from trt_qat.cli.app import main

if __name__ == "__main__":
    main()
