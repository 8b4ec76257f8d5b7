"""Quiets the libraries' progress bars and chatter, for programs that show progress of their own."""

import logging
import os


def quiet_libraries() -> None:
    """Turn off what transformers, datasets, the hub client and lm-eval print while they work. Errors still show."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # else its warning on every later fork
    from datasets.utils.logging import disable_progress_bar, set_verbosity_error
    from transformers.utils import logging as transformers_logging

    disable_progress_bar()
    set_verbosity_error()
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    for name in ("lm_eval", "lm-eval", "huggingface_hub", "filelock", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
