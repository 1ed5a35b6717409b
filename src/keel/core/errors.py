"""What keel raises.

KeelError
├── ConfigError     a setting that cannot be: unknown key, wrong type, values that contradict each other
├── DataError       a record that cannot be used, with file and line
├── ArtifactError   a run folder or artifact that is missing, damaged, locked or of the wrong kind
├── EndpointError   a model behind an address that cannot be reached, refuses, or answers nonsense
├── MissingError    something asked for by its name or number that is not there
├── ConflictError   what is asked for no longer fits: a name taken, a vote whose place another has filled
├── AccessError     somebody who may not do this
├── GateError       a quality gate that refuses to go on: collapsed reward model, agreement too low
└── TrainingError   a run that cannot go on: nan loss, no tokens to learn from

Each message says what was found, where, what was expected, and what to do. The command line prints it without a
traceback and exits with status 2.
"""


class KeelError(Exception):
    """Anything keel can explain to its user."""


class ConfigError(KeelError):
    """A setting that cannot be."""


class DataError(KeelError):
    """A record that cannot be used."""


class ArtifactError(KeelError):
    """A run folder or artifact that is missing, damaged, locked or of the wrong kind."""


class EndpointError(KeelError):
    """A service that cannot be used: down, too slow, refusing, or answering nonsense."""


class MissingError(KeelError):
    """Something asked for by its name or number that is not there."""


class ConflictError(KeelError):
    """What is asked for no longer fits the state of things."""


class AccessError(KeelError):
    """Somebody who may not do this."""


class GateError(KeelError):
    """A quality gate that refuses to go on."""


class TrainingError(KeelError):
    """A run that cannot go on."""


class NotFiniteError(TrainingError):
    """A loss or gradient that is no finite number; the step was not taken."""
