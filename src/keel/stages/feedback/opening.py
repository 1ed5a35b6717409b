"""From settings to somebody who judges or writes; a policy that would judge itself is refused."""

from pathlib import Path

from keel.core.errors import GateError
from keel.core.files import file_sha256
from keel.models.settings import ModelConfig
from keel.stages.context import Run
from keel.stages.endpoint import Endpoint, Sampling
from keel.stages.feedback.answers import Answers, Purse
from keel.stages.feedback.critics import Critic, EndpointCritic, ModelCritic, PythonCritic
from keel.stages.feedback.judges import AIJudge, EndpointJudge, PythonJudge
from keel.stages.feedback.judging import AILabeller, Rubric
from keel.stages.feedback.local import LocalJudge, LocalModel, LocalWriter
from keel.stages.feedback.revise import Revision
from keel.stages.policy import PolicyFiles
from keel.stages.sample_local import policy_at
from keel.stages.sections.constitution import Constitution, ConstitutionConfig
from keel.stages.sections.feedback import FeedbackConfig, ModelSource

CACHE = "feedback.sqlite"
WEIGHTS = (".safetensors", ".bin", ".pt", ".gguf")


def answers_of(run: Run, cache: str | None) -> Answers:
    """The file that keeps what was said: the run's own, or one that runs share."""
    return Answers(Path(cache).expanduser(), shared=True) if cache else Answers(run.directory / CACHE)


def local_model(source: ModelSource, model: ModelConfig) -> LocalModel:
    """The model of `source.path`, on the device of the recipe's model."""
    path, _ = policy_at(str(source.path))
    files = PolicyFiles.of_model(
        ModelConfig(
            path=path,
            dtype=source.dtype,
            quantise=source.quantise,
            chat_template=source.chat_template,
            device=model.device,
            trust_remote_code=model.trust_remote_code,
        )
    )
    return LocalModel(files, content=files.identity, micro_batch_tokens=source.micro_batch_tokens)


def open_labeller(
    run: Run, config: FeedbackConfig, model: ModelConfig, constitution: Constitution | None
) -> AILabeller:
    """The judge of a recipe; GateError when it is the model that the recipe starts from, or one that it made."""
    purse: Purse | None = None
    if config.judge.endpoint is not None:
        purse = Purse(config.judge.endpoint, config.budget_usd)
    refuse_self_judging(config, model.path, run.directory)
    if constitution is not None:
        rubrics = [Rubric(name=one.name, text=one.prefer) for one in constitution.principles]
    else:
        rubrics = [Rubric.of(config.rubric)]
    return AILabeller(
        judge=open_judge(run, config, model, purse),
        answers=answers_of(run, config.cache),
        rubrics=rubrics,
        seed=run.seed,
        orders=config.orders,
        ties=config.ties,
        labels=config.labels,
        purse=purse,
        progress=run.progress,
    )


def open_judge(run: Run, config: FeedbackConfig, model: ModelConfig, purse: Purse | None) -> AIJudge:
    source = config.judge
    if source.endpoint is not None:
        return EndpointJudge(Endpoint(source.endpoint), config.max_new_tokens, verdicts=config.verdicts, purse=purse)
    if source.python is not None:
        return PythonJudge.named(source.python, "feedback.judge.python", run.recipe_folder)
    return LocalJudge(local_model(source, model))


def open_revision(
    run: Run, config: ConstitutionConfig, constitution: Constitution, model: ModelConfig, policy: PolicyFiles
) -> Revision:
    """The critic of a recipe with its principles; the policy itself where the recipe names none."""
    source, purse, answers = config.critic, None, answers_of(run, config.cache)
    sampling = Sampling(max_new_tokens=config.critic_tokens, temperature=config.temperature, seed=run.seed)
    critic: Critic
    if source is not None and source.endpoint is not None:
        purse = Purse(source.endpoint, config.budget_usd)
        critic = EndpointCritic(Endpoint(source.endpoint), sampling, purse, answers)
    elif source is not None and source.python is not None:
        critic = PythonCritic.named(source.python, "constitution.critic.python", run.recipe_folder)
    else:
        local = local_model(source, model) if source is not None else LocalModel(policy, content=policy.identity)
        critic = ModelCritic(LocalWriter(local, run.seed, sampling))
    return Revision(
        config=config,
        constitution=constitution,
        critic=critic,
        answers=answers,
        seed=run.seed,
        progress=run.progress,
        purse=purse,
    )


def refuse_self_judging(config: FeedbackConfig, policy: str, directory: Path) -> None:
    """GateError for a judge with the weights or the name of the model that is trained, unless a reason is given.

    `policy` is the model that the recipe starts from; policies of the run folder `directory` came of it.
    """
    source = config.judge
    if config.allow_self_judging or source.python is not None:
        return
    if source.endpoint is not None:
        who, same = f"{source.endpoint.model} at {source.endpoint.url}", called(source.endpoint.model) == called(policy)
    else:
        who = str(source.path)
        path, _ = policy_at(who)
        named = not (Path(path).is_dir() and Path(policy).is_dir()) and called(path) == called(policy)
        same = named or same_weights(path, policy) or Path(path).resolve().is_relative_to(directory.resolve())
    if same:
        raise GateError(
            f"feedback.judge: {who} is the model that is trained ({policy}), and a model prefers its own answers. Let "
            "another one judge; or, where that is what you study, say why: feedback.allow_self_judging."
        )


def refuse_own_answers(config: FeedbackConfig, models: set[str], where: str) -> None:
    """GateError for pairs that hold answers of the judge."""
    endpoint = config.judge.endpoint
    mine = called(endpoint.model if endpoint else config.judge.path or "")
    own = {name for name in models if mine and called(name) == mine}
    if own and not config.allow_self_judging:
        raise GateError(
            f"{where} holds answers of {', '.join(sorted(own))}, which is the judge, and a model prefers its own. Let "
            "another one judge; or, where that is what you study, say why: feedback.allow_self_judging."
        )


def called(name: str) -> str:
    """A model's name without its owner or folder, in lower case."""
    return name.rstrip("/").rpartition("/")[2].lower()


def same_weights(one: str, other: str) -> bool:
    """Whether two models are the same: the same place, or files of weights with the same content."""
    if one.lower() == other.lower():
        return True
    first, second = weights(Path(one)), weights(Path(other))
    if not first or [size for size, _ in first] != [size for size, _ in second]:
        return False
    return sorted(file_sha256(path) for _, path in first) == sorted(file_sha256(path) for _, path in second)


def weights(folder: Path) -> list[tuple[int, Path]]:
    """The files of weights of a folder with their sizes in bytes, small ones first; none of a hub name."""
    if not folder.is_dir():
        return []
    return sorted((path.stat().st_size, path) for path in folder.iterdir() if path.suffix in WEIGHTS)
