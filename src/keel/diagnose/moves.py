"""What can be changed when something is wrong, whatever the tool, and what each rule calls for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Move:
    """A change that any trainer can make in one way or another."""

    why: str
    watch: str
    """What to look at in the next run, to see whether it helped or went too far."""


MOVES: Mapping[str, Move] = {
    "hold": Move(
        "A dearer KL keeps the policy where the reward model was trained and its scores can be believed.",
        "the KL should settle lower; if the score stops rising too, it was too much",
    ),
    "loosen": Move(
        "The policy hardly moves; a cheaper KL lets it.",
        "the KL, which should stay inside its band, and some answers read by eye",
    ),
    "slower": Move(
        "Smaller steps leave less room to overshoot, and the alarm comes earlier than the damage.",
        "the same figures as here: they should change later and less",
    ),
    "faster": Move(
        "Steps are too small to show against the noise.",
        "the loss, for leaps",
    ),
    "shorter": Move(
        "When length is paid for, a longer answer must earn its tokens.",
        "length should come back to that of the start; if answers turn curt, halve it",
    ),
    "finish": Move(
        "An answer that runs into the limit has not been judged whole; it should not pay.",
        "the share of finished answers, which should rise to nearly all",
    ),
    "room": Move(
        "Answers are cut off before they end, and what was cut is judged as it stands.",
        "the share of finished answers, and length: if it follows the limit, the reward pays for length",
    ),
    "explore": Move(
        "An entropy bonus, or more room to clip upwards, keeps other answers alive for the reward to find.",
        "entropy, which should stop falling; if answers turn to noise, it was too much",
    ),
    "warmer": Move(
        "A higher temperature samples more different answers to learn from.",
        "the spread of scores, which should grow, and the share of finished answers",
    ),
    "more_samples": Move(
        "More answers a prompt give a steadier baseline, and fewer prompts whose answers all score alike.",
        "the noise of the mean score from update to update",
    ),
    "stop_earlier": Move(
        "The policy was better before the alarm than at the end.",
        "that checkpoint against the last one and the start, compared by eyes or judges on held-out prompts",
    ),
    "fewer_epochs": Move(
        "Fewer passes over the same answers keep each update near the policy that sampled them.",
        "the share of clipped tokens, which should fall below about a fifth",
    ),
    "narrow": Move(
        "A narrower clip bounds what one update can change.",
        "the KL of one update",
    ),
    "critic": Move(
        "A critic that explains nothing adds noise to every advantage; let it learn faster, or first.",
        "explained variance, which should be above 0 within some updates",
    ),
    "no_critic": Move(
        "Without a critic nothing can be wrong with it; several answers a prompt make the baseline.",
        "the noise of the mean score",
    ),
    "fresh_labels": Move(
        "The reward model has not seen what the policy writes now; labels on its own answers teach it.",
        "the reward model's accuracy on these labels, before and after: near half means that it was fooled",
    ),
    "better_reward": Move(
        "The optimiser finds what the reward model gets wrong; more pairs and a mixed set of them leave less to find.",
        "held-out accuracy, and the rival that always takes the longer answer",
    ),
    "ensemble": Move(
        "Several reward models disagree where one is merely confident; the least of them is harder to fool.",
        "their disagreement on the policy's answers. A bias that all raters share stays",
    ),
    "clip_reward": Move(
        "A few extreme scores cannot steer the update any more.",
        "the share of clipped scores: over a twentieth, and the ranking suffers",
    ),
    "prompts": Move(
        "Prompts that were seen many times are learned by heart.",
        "the held-out reward, which should rise with that of training",
    ),
    "rescale": Move(
        "Scores of an unknown scale are mostly cut off by the clip; the statistics of the run bring them into it.",
        "the share of clipped scores, which should be a few in a hundred",
    ),
    "place": Move(
        "Only k1 in the reward leads to the policy that the KL is meant to lead to.",
        "the KL, and the score against it",
    ),
    "spread": Move(
        "Prompts whose answers all score alike teach nothing; drop them, or take harder and easier ones in.",
        "the share of prompts without spread, which should fall",
    ),
    "longer": Move(
        "The run ended before its figures had settled.",
        "the KL, and a check by judges before and after",
    ),
    "judge": Move(
        "A score says what the reward model thinks; whether the answers are better, only other judges can say.",
        "the win rate over the start on held-out prompts: it should rise with the score",
    ),
    "sturdier": Move(
        "The training overflowed; smaller steps and gradients clipped harder keep numbers finite.",
        "the gradient norm in the updates before it went wrong",
    ),
    "hold_pairs": Move(
        "A larger beta keeps the policy nearer to its reference while it learns the same preferences.",
        "the log-probability of chosen answers, which should fall less; margins grow slower, which is fine",
    ),
    "loosen_pairs": Move(
        "A smaller beta lets the same preference move the policy further.",
        "held-out accuracy, and the log-probability of chosen answers",
    ),
    "likelihood": Move(
        "A likelihood term on chosen answers stops them from falling together with the rejected ones.",
        "the log-probability of chosen answers",
    ),
    "smooth": Move(
        "Labels that are partly wrong should not be believed without limit.",
        "held-out accuracy, which should rise although training accuracy falls",
    ),
    "pass_less": Move(
        "What is learned by heart is learned in the later passes.",
        "held-out loss, which should still be falling at the end",
    ),
    "pass_more": Move(
        "One more pass shows whether the held-out loss still falls.",
        "held-out loss: stop where it turns",
    ),
    "clean": Move(
        "No setting repairs labels that contradict each other or are swapped.",
        "agreement between raters on shared items, and accuracy again",
    ),
    "centre": Move(
        "Scores near zero keep the loss in its working range and RL's reward in a known one.",
        "mean and largest score",
    ),
    "evaluate": Move(
        "Without held-out figures nobody can see where training should have ended.",
        "held-out loss and accuracy against those of training",
    ),
    "decay": Move(
        "Weight decay keeps weights, and with them scores, from growing without need.",
        "held-out loss",
    ),
}

CALLED_FOR: Mapping[str, Sequence[str]] = {
    "judge_failed": ("judge",),
    "judges_silent": ("judge",),
    "not_finite": ("slower", "sturdier", "hold", "clip_reward", "stop_earlier"),
    "distance": ("hold", "stop_earlier", "slower"),
    "length_growth": ("shorter", "hold", "fresh_labels", "finish"),
    "unfinished_answers": ("finish", "room", "shorter"),
    "answers_cut_off": ("room", "finish", "shorter"),
    "entropy_collapse": ("explore", "hold", "slower", "warmer"),
    "no_spread": ("spread", "more_samples", "warmer", "explore"),
    "no_signal": ("spread", "more_samples", "warmer", "explore"),
    "score_course": ("slower", "stop_earlier", "hold", "critic", "more_samples"),
    "score_flat": ("loosen", "faster", "more_samples"),
    "update_size": ("fewer_epochs", "slower", "narrow"),
    "critic": ("critic", "no_critic", "slower"),
    "clipped_scores": ("rescale", "clip_reward", "better_reward"),
    "kl_placement": ("place", "hold", "loosen"),
    "nothing_gained": ("slower", "clean", "smooth"),
    "kl_runaway": ("hold", "slower", "stop_earlier"),
    "off_distribution": ("hold", "stop_earlier", "fresh_labels"),
    "unfamiliar_text": ("hold", "fresh_labels", "stop_earlier"),
    "score_spread": ("hold", "clip_reward", "fresh_labels"),
    "reward_disagreement": ("ensemble", "fresh_labels", "hold"),
    "length_hacking": ("shorter", "hold", "fresh_labels"),
    "repetition": ("hold", "fresh_labels", "stop_earlier"),
    "incoherence": ("finish", "room", "hold"),
    "stock_phrase": ("fresh_labels", "hold", "better_reward"),
    "mode_collapse": ("explore", "hold", "warmer", "slower"),
    "human_gain": ("stop_earlier", "fresh_labels", "hold"),
    "reward_agreement": ("fresh_labels", "better_reward", "ensemble"),
    "reward_bias": ("fresh_labels", "better_reward", "hold"),
    "reward_flattened": ("better_reward", "more_samples", "spread"),
    "value_failure": ("critic", "no_critic", "slower"),
    "too_far": ("fewer_epochs", "slower", "narrow"),
    "data_exhausted": ("prompts", "stop_earlier"),
    "kl_finite": ("slower", "hold", "sturdier", "stop_earlier"),
    "kl_per_sequence": ("hold", "stop_earlier", "slower"),
    "kl_per_token": ("hold", "slower", "stop_earlier"),
    "stalled": ("loosen", "faster", "more_samples"),
    "reward_collapse": ("better_reward", "clean", "spread"),
    "reward_saturation": ("centre", "decay", "slower"),
    "overfitting": ("pass_less", "slower", "decay"),
    "memorised": ("pass_less", "smooth", "slower", "better_reward"),
    "pair_accuracy": ("clean", "smooth", "faster", "better_reward"),
    "chosen_falls": ("hold_pairs", "likelihood", "slower"),
    "saturated_loss": ("pass_less", "slower", "hold_pairs"),
    "no_learning": ("faster", "pass_more", "clean"),
    "agreement": ("clean", "smooth", "better_reward"),
    "reward_model_accuracy": ("clean", "better_reward", "ensemble"),
    "best_of_n": ("better_reward", "clean", "fresh_labels"),
    "learning_rate": ("slower",),
}
"""Moves by rule, the likeliest to help first. A tool that has no setting for a move leaves it out."""

DEFAULT_MOVES: Mapping[str, Sequence[str]] = {
    "rl": ("hold", "slower", "fresh_labels", "stop_earlier", "more_samples"),
    "preference": ("hold_pairs", "slower", "pass_less"),
    "reward": ("clean", "slower", "better_reward", "pass_less"),
    "sft": ("slower", "pass_less", "evaluate"),
}
"""What is added when the rules call for fewer than three."""

HEALTHY_MOVES: Mapping[str, Sequence[str]] = {
    "rl": ("judge", "more_samples", "fresh_labels"),
    "preference": ("judge", "loosen_pairs", "smooth"),
    "reward": ("ensemble", "better_reward", "fresh_labels"),
    "sft": ("evaluate", "pass_more", "slower"),
}

NAMES: Mapping[str, str] = {
    "not_finite": "figures that are no numbers",
    "distance": "the policy has left its reference behind",
    "length_growth": "length hacking",
    "unfinished_answers": "answers that do not end",
    "answers_cut_off": "answers that are cut off",
    "entropy_collapse": "answers that have become alike",
    "no_spread": "prompts that teach nothing",
    "no_signal": "prompts that teach nothing",
    "score_course": "a score that fell, or did not last",
    "score_flat": "a score that does not rise",
    "update_size": "updates that go too far",
    "critic": "a critic that explains nothing",
    "clipped_scores": "scores that are cut off",
    "kl_placement": "a KL penalty that leads elsewhere",
    "nothing_gained": "training that gained nothing",
    "judge_failed": "judges whose verdicts failed",
    "judges_silent": "judges who do not answer",
    "kl_runaway": "a KL that takes off",
    "off_distribution": "answers that the reference would never give",
    "unfamiliar_text": "answers that the reward model knows nothing of",
    "score_spread": "scores that drift apart",
    "reward_disagreement": "reward models that disagree",
    "length_hacking": "length hacking",
    "repetition": "answers that repeat themselves",
    "incoherence": "answers that do not end",
    "stock_phrase": "one phrase in most answers",
    "mode_collapse": "answers that have become alike",
    "human_gain": "a score that judges do not share",
    "reward_agreement": "a reward model that no longer agrees with judges",
    "reward_bias": "a reward model that overlooks what judges mind",
    "reward_flattened": "scores that are all alike",
    "value_failure": "a critic that explains nothing",
    "too_far": "updates that go too far",
    "stalled": "a policy that no longer moves",
    "data_exhausted": "prompts learned by heart",
    "kl_finite": "a KL that is not finite",
    "kl_per_sequence": "the policy has left its reference behind",
    "kl_per_token": "the policy drifts from its reference",
    "reward_collapse": "scores that are all alike",
    "reward_saturation": "scores that have run away",
    "overfitting": "learning by heart",
    "memorised": "training pairs learned by heart",
    "pair_accuracy": "a preference that was hardly learned",
    "chosen_falls": "chosen answers becoming less likely",
    "saturated_loss": "nothing left to learn from the pairs",
    "no_learning": "a loss that does not fall",
    "agreement": "raters who disagree",
    "reward_model_accuracy": "a weak reward model",
    "best_of_n": "a reward model whose favourites raters do not prefer",
    "learning_rate": "an unusual learning rate",
}
"""What each rule finds, as a doctor would call it."""

CAUSES: Mapping[str, str] = {
    "kl_per_sequence": "The KL costs less than the score gains by leaving what the reward model was trained on.",
    "kl_per_token": "The KL costs less than the score gains by leaving what the reward model was trained on.",
    "kl_finite": "The policy diverged, or gives a probability of 0 to what it sampled.",
    "agreement": "The raters read the guide differently, or the guide leaves open what counts.",
    "best_of_n": "The reward model prefers what raters do not.",
    "learning_rate": "The rate is one for another method: full fine-tuning and LoRA differ about tenfold.",
}
"""What brings a finding about, for rules that do not say so themselves."""
