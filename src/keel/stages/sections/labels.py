"""How votes become labels."""

from typing import Literal

Labels = Literal["given", "majority", "share", "weighted", "dawid_skene"]
