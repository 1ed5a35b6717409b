import logging

# bitsandbytes, which peft loads where it is installed, warns of a missing kernel that keel does not use.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
