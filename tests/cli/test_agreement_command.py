"""`keel data agreement` and `keel data judges` on the command line."""

import json

import pytest

from keel.cli.main import main


@pytest.fixture
def votes_file(tmp_path):
    path = tmp_path / "votes.jsonl"
    lines = []
    for number in range(20):
        choices = {"ann": "a" if number % 2 else "b", "bob": "a" if number % 2 or number == 0 else "b", "cyd": "a"}
        votes = [{"rater": rater, "choice": choice} for rater, choice in choices.items()]
        lines.append({"prompt": f"q {number}", "response_a": "yes", "response_b": "no no", "votes": votes})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_agreement_prints_measures_raters_and_a_verdict(votes_file, capsys):
    assert main(["data", "agreement", str(votes_file)]) == 0
    output, error = capsys.readouterr()
    assert "20 items, 20 with two votes or more, 3 raters, 60 votes" in output
    for name in ("column votes holds the votes", "agreement", "Fleiss' kappa", "Krippendorff's alpha", "interval"):
        assert name in output
    assert output.index("cyd") < output.index("ann")  # least agreeing first
    assert "raters, least agreeing first (kappa with all others together, quadratic weights)" in output
    assert "Next: " in error


def test_agreement_as_json_has_the_promised_keys(votes_file, capsys):
    assert main(["data", "agreement", str(votes_file), "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    for name in ("pairwise_agreement", "krippendorff_alpha", "fleiss_kappa"):
        assert figures[f"{name}_low"] <= figures[name] <= figures[f"{name}_high"]
    assert (figures["items"], figures["raters"], figures["votes"], figures["level"]) == (20, 3, 60, "nominal")
    assert [pair["raters"] for pair in figures["cohen_kappa"]] == [["ann", "bob"], ["ann", "cyd"], ["bob", "cyd"]]
    assert figures["cohen_kappa"][0]["kappa"] == pytest.approx(0.9)  # 19 of 20 the same, by chance 1 of 2
    assert figures["cohen_kappa"][0]["items"] == 20
    assert [rater["rater"] for rater in figures["by_rater"]] == ["ann", "bob", "cyd"]


def test_agreement_takes_columns_raters_and_an_order(tmp_path, capsys):
    path = tmp_path / "odd.csv"
    path.write_text("text,who,said\n1,ann,poor\n1,bob,fine\n2,ann,good\n2,bob,good\n2,gpt,poor\n")
    flags = ["--item", "text", "--rater", "who", "--vote", "said"]
    order = ["--level", "ordinal", "--order", "poor,fine,good"]
    assert main(["data", "agreement", str(path), *flags, *order, "--raters", "ann,bob", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert (figures["items"], figures["raters"], figures["categories"]) == (2, 2, ["poor", "fine", "good"])
    assert figures["level"] == "ordinal"
    assert main(["data", "agreement", str(path), *flags, "--level", "ordinal"]) == 2
    assert "have no order that keel knows" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "it is empty"),
        ('{"prompt": "p", "chosen": "x", "rejected": "y"}\n', "no votes found in the columns prompt, chosen, rejected"),
        ('{"id": 1, "votes": {"ann": "a"}}\n{"id": 2, "votes": {"ann": "b"}}\n', "only ann voted, on 2 items"),
        ('{"id": 1, "votes": {"ann": "a"}}\n{"id": 2, "votes": {"bob": "b"}}\n', "none of the 2 raters share an item"),
        ('{"id": 1, "votes": {"ann": "a"}}\n{"rater": "bob", "vote": "b", "id": 1}\n', "two ways of writing votes"),
        ('{"id": 1, "votes": 3}\n', "no votes found"),
        ('{"id": 1, "votes": {"ann": [1], "bob": {}}}\n', "no vote could be read"),
        ("not json\n", "no row to read"),
    ],
)
def test_a_file_without_agreement_says_why(tmp_path, capsys, text, said):
    path = tmp_path / "votes.jsonl"
    path.write_text(text)
    assert main(["data", "agreement", str(path)]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error


def test_votes_that_the_gate_stops_are_not_sent_to_training(tmp_path, capsys):
    path = tmp_path / "votes.jsonl"
    rows = [{"id": n, "votes": {"ann": "ab"[n % 2], "bob": "ab"[n // 2 % 2]}} for n in range(20)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["data", "agreement", str(path)]) == 0
    output, error = capsys.readouterr()
    assert "below 0.40: mostly noise" in output
    assert "recipe" not in error


def test_the_verdict_names_the_rater_and_the_items_to_talk_about(tmp_path, capsys):
    path = tmp_path / "votes.jsonl"
    rows = [{"id": f"pair {n}", "votes": dict.fromkeys(("ann", "bob", "cyd"), "ab"[n % 2])} for n in range(60)]
    for n, row in enumerate(rows):
        row["votes"]["eve"] = "ab"[n // 2 % 2]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["data", "agreement", str(path)]) == 0
    output = capsys.readouterr().out
    assert "Talk first to eve (kappa 0.0" in output
    assert "Items pair 1, pair 2, " in output
    assert main(["data", "agreement", str(path), "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["verdict"]["raters"] == ["eve"]
    assert figures["verdict"]["items"][0] == "pair 1"
    assert {one["rater"] for one in figures["weighted_kappa"]} == {"ann", "bob", "cyd", "eve"}


def test_votes_that_compare_nothing_are_judged_without_names(tmp_path, capsys):
    path = tmp_path / "votes.jsonl"
    rows = [{"id": n, "votes": {"ann": "red", "bob": ["red", "blue", "green"][n % 3]}} for n in range(30)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["data", "agreement", str(path)]) == 0
    output = capsys.readouterr().out
    assert "(kappa with all others together, no weights)" in output
    assert "items they differ on" in output
    assert "Talk first" not in output


@pytest.mark.parametrize("command", ["show", "doctor"])
@pytest.mark.parametrize(
    "row",
    [
        {"question_id": 1, "model_a": "x", "model_b": "y", "judge": "ann", "turn": 1, "winner": "model_a"},
        {"id": 1, "article": "t", "system": "s", "summary": "u", "votes": {"ann": "yes"}},
        {"token": "good", "mean": 1.9, "std": 0.9, "ratings": [2, 1, 3]},
        {"id": 1, "judge": "llm", "verdict": "a", "verdict_swapped": "b"},
    ],
)
def test_a_file_of_nothing_but_votes_is_sent_to_the_command_that_reads_it(tmp_path, capsys, command, row):
    path = tmp_path / "votes.jsonl"
    path.write_text(json.dumps(row) + "\n")
    assert main(["data", command, str(path)]) == 2
    error = capsys.readouterr().err
    assert "keel data agreement" in error
    assert "keel data judges" in error
    assert "question, response: answer" not in error


def test_a_wrong_preset_or_column_is_named(votes_file, capsys):
    assert main(["data", "agreement", str(votes_file), "--preset", "mtbanch"]) == 2
    assert "Did you mean 'mtbench'?" in capsys.readouterr().err
    assert main(["data", "agreement", str(votes_file), "--item", "nmae"]) == 2
    assert "there is no column nmae" in capsys.readouterr().err
    assert main(["data", "agreement", str(votes_file), "--raters", "zoe*"]) == 2
    assert "no rater is called zoe*; the raters are ann, bob, cyd" in capsys.readouterr().err


@pytest.fixture
def verdicts_file(tmp_path):
    """A judge that is right nine times of ten, and one that always says the first."""
    rows, pairs = [], []
    for n in range(60):
        gold = "ab"[n % 2]
        pairs.append({"id": f"p{n}", "preference": gold})
        wrong = "ba"[n % 2]
        good = wrong if n % 10 == 0 else gold
        rows.append({"id": f"p{n}", "judge": "good", "verdict": good, "verdict_swapped": good})
        rows.append({"id": f"p{n}", "judge": "left", "verdict": "a", "verdict_swapped": "b"})
    for name, records in (("verdicts.jsonl", rows), ("gold.jsonl", pairs)):
        (tmp_path / name).write_text("".join(json.dumps(record) + "\n" for record in records))
    return tmp_path / "verdicts.jsonl"


def test_judges_are_sorted_and_the_biased_one_is_named(verdicts_file, capsys):
    gold = str(verdicts_file.with_name("gold.jsonl"))
    assert main(["data", "judges", str(verdicts_file), "--gold", gold]) == 0
    output, error = capsys.readouterr()
    assert output.index("good") < output.index("left")
    assert "not to be trusted as they are: 1 of 2 judges" in output
    assert "favours the answer shown first, by 100 points" in output
    assert "same verdict in both orders on only 0 %" in output
    assert "use good, asked in both orders" in error


def test_judges_as_json_has_every_figure(verdicts_file, capsys):
    gold = str(verdicts_file.with_name("gold.jsonl"))
    assert main(["data", "judges", str(verdicts_file), "--gold", gold, "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    good, left = figures["judges"]
    assert figures["items"] == 60
    assert (good["judge"], good["accuracy"], good["consistency"], good["position_bias"]) == ("good", 0.9, 1.0, 0.0)
    assert good["accuracy_low"] < 0.9 < good["accuracy_high"]
    assert (left["accuracy"], left["consistency"], left["position_bias"], left["kappa"]) == (0.5, 0.0, 1.0, 0.0)
    assert good["flags"] == []
    assert len(left["flags"]) == 3


def test_without_gold_somebody_must_be_the_judge(tmp_path, capsys):
    path = tmp_path / "votes.jsonl"
    rows = [{"item": n, "rater": r, "vote": "ab"[n % 2]} for n in range(20) for r in ("ann", "bob", "llm")]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["data", "judges", str(path)]) == 2
    assert "who is the judge? The raters are ann, bob, llm" in capsys.readouterr().err
    assert main(["data", "judges", str(path), "--judge", "llm"]) == 0
    output = capsys.readouterr().out
    assert "1 judge on 20 items; right is what most of the 2 other raters said" in output
    assert "100.0 %" in output
    assert main(["data", "judges", str(path), "--judge", "gpt*"]) == 2
    assert "no judge is called gpt*" in capsys.readouterr().err
    gold = tmp_path / "gold.jsonl"
    gold.write_text('{"item": 99, "preference": "a"}\n')
    assert main(["data", "judges", str(path), "--gold", str(gold)]) == 2
    assert "Both files must name items alike" in capsys.readouterr().err
