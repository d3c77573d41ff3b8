"""The model under training: where it comes from, how it is loaded, quantised and adapted, and how it is
asked."""

import logging
import warnings

# bitsandbytes advises at import to fetch kernels from the hub, peft asks transformers by a deprecated name.
# Neither is anything the user of this program could act on.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
