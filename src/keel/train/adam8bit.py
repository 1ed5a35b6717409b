"""AdamW whose means of gradients and squared gradients take 8 bits each (Dettmers et al. 2021), by bitsandbytes.

Imported only once `require_bitsandbytes` has found the library.
"""

from collections.abc import Mapping
from typing import Any

import torch
from bitsandbytes.optim import AdamW8bit

TABLES = {"qmap1": "dynamic", "qmap2": "udynamic"}
"""Tables from 8 bits to numbers, the same for all parameters and runs: named here, never saved."""


class SavedAdamW8bit(AdamW8bit):
    """The library's optimiser with a state that is only tensors, and comes back to the same bits.

    Parameters of fewer than 4,096 numbers keep 32-bit states, as the library has it.
    """

    def state_dict(self) -> dict[str, Any]:
        """As torch's optimisers give it, by the parameters' order."""
        states = {
            index: {name: value for name, value in self.state[p].items() if name not in TABLES}
            for index, p in enumerate(self._parameters())
            if p in self.state
        }
        return {"state": states, "param_groups": [{**g, "params": []} for g in self.param_groups]}

    def load_state_dict(self, state_dict: Mapping[str, Any], move_to_device: bool = True) -> None:
        """Take back what `state_dict` gave; the rates are the caller's."""
        parameters = self._parameters()
        self.state.clear()
        for index, state in state_dict["state"].items():
            p = parameters[index]
            own = {name: value.to(p.device) for name, value in state.items() if name != "step"}
            if own["state1"].dtype == torch.uint8:
                for name, table in TABLES.items():
                    self.name2qmap[table] = own[name] = self.name2qmap[table].to(p.device)
            self.state[p] = {"step": int(state["step"]), **own}

    def _parameters(self) -> list[torch.nn.Parameter]:
        return [p for group in self.param_groups for p in group["params"]]
