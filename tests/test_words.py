"""Code, messages and docs are in plain English: none of the words below, which have better ones."""

import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[1]
FOLDERS = ("kerasrestart", "tests", "benchmarks", "examples", "flags", "docs", ".ci")
SUFFIXES = {".py", ".md", ".toml", ".yml", ".flags", ".cff", ".in", ""}
# This file, and reports that a study wrote: records of their runs, as those versions wrote them.
EXCLUDED = re.compile(r"tests/test_words\.py|docs/results/\w+/.*")

# Words and phrases -> what to write. A space matches line breaks, comment signs and quotes too, and
# a match with a group `ok` is correct English.
PHRASES = {
    r"by lot|the lot (takes|took|draws|drew|gives|gave|chose)": "at random",
    r"told apart|tells? .{1,30}\bapart": "distinguished; no significant difference",
    r"anew|afresh": "again; re-initialised",
    r"(go|goes|going|went|gone) on(?P<ok> (disk|top|a\b|an\b|the\b))?": "continues; resumes",
    r"(goes|go|comes?|stands?|stood|placed) behind|behind the (last|first|next) epoch": "after",
    r"(right|directly) behind": "directly after",
    r"behind (an?|the)( \w+)? (pool|pooling|activation|norm|ReLU|concatenations?|sum)": "after",
    r"what (became|becomes|came|comes|come) of": "the result of; what happens to",
    r"what \w+ \w+ (came|comes) to": "the result of",
    r"(bear|bears|bore) the( same)? name": "has the (same) name",
    r"(imports?|takes?|needs?|knows?|reads?|has|have) (it|them) not": "does not ... it",
    r"look(s|ed)? after": "supported; handled",
    r"so many(?P<ok>(?= .{0,40}\bthat\b))?": "every N-th; that number of",
    r"(is|are) to (fall|rise)": "lower (higher) is better",
    r"(take|takes|taken|took|taking)( |_)up(?P<ok> (space|memory|room))?": "absorb; restore",
    r"(written|found|given|drawn) whole|whole or not at all": "atomic(ally)",
    r"told": "message; notified; given",
    r"tells? (a|an|of|nothing)": "shows; says; indicates",
    r"dearer|dearest": "costs more",
    r"for want of": "for lack of; not yet tried",
    r"rooms?(?P<ok> (for|to|left)\b)?": "packages",
    r"optimizer's memory|optimizers' memory|memory of the optimizer": "optimizer state",
    r"(can|cannot|could|to) be had|(is|are) had from": "available; obtained",
    r"turns? the order round": "reverses the ranking",
    r"(?P<ok>(t|w)here )?(is|are) no(?! (longer|more|less|better|worse|different)\b)": "is not a",
    r"that there is no \w+ (of|for)": "missing",
    r"but for(?P<ok> (all|which)\b)?": "except",
    r"in silence": "silently",
    r"for ever": "forever",
    r"dips?": "metric drop",
    r"stood": "was",
    r"stands?(?P<ok> (for|out|still)\b)?": "is",
    r"of one's": "given; chosen",
    r"(at )?the begin|begins? of": "the start of",
    r"sees? to it": "makes sure",
    r"looks? whether": "checks whether",
    r"(came|comes?) of(?P<ok> age)?": "comes from; is that of",
    r"before the eyes": "and notifies; in sight",
    r"(?P<ok>there )?are others": "have changed; differ",
    r"tells, see": "shows: see",
    r"seldom|whilst|amongst|upon|whence|thence|hitherto|lest|ere|aught|naught": "a modern word",
}
# Old names in the code -> new ones. Case matters.
NAMES = {
    r"written_whole": "atomic_write",
    r"saying_how_to_go_on": "explain_interruption",
    r"saying_that_nothing_began": "explain_startup_failure",
    r"what_came_before": "divergence_context",
    r"FREE": "same_on_resume",
    r"many(?=:|=[^=])": "eval_batch_size",
    r"agree(?=\()": "check_workers_match",
    r"Sites?|Surveys?": "FilterLayer, FilterLayers",
    r"_?gate_weights": "affine weights",
    r"_?costs_per_loss": "loss_to_example_scale",
    r"_?share_of_loss": "replica_loss_weight",
    r"useless_again": "reselected",
    r"soonest": "min_epochs_to_end",
    r"filters_in": "filter_count",
    r"least_epochs_left": "min_epochs_after_restart",
    r"chooses(?=\b[:(])": "is_model_selected",
    r"class Plain|Plain(?=\()": "Stationary",
    r"RegimeClock": "ClassOrderCallback",
    r"mean_inputs": "reader_input_means",
}

_SPACE = r"""[\s#"'*]+"""  # a phrase may continue on the next line of a comment, text or string


def compiled(pattern, flags):
    return re.compile(rf"(?<!\w)(?:{pattern.replace(' ', _SPACE)})(?!\w)", flags)


PATTERNS = [
    *((compiled(pattern, re.IGNORECASE), better) for pattern, better in PHRASES.items()),
    *((compiled(pattern, 0), better) for pattern, better in NAMES.items()),
]


def dialect(text):
    """Yields the line, the words and the replacement of each match in a text."""
    for pattern, better in PATTERNS:
        for match in pattern.finditer(text):
            if match.groupdict().get("ok") is None:
                line = text.count("\n", 0, match.start()) + 1
                yield line, " ".join(match[0].split()), better


def documents():
    found = [path for path in ROOT.iterdir() if path.is_file()]
    for folder in FOLDERS:
        found += [path for path in (ROOT / folder).rglob("*") if path.is_file()]
    for path in sorted(found):
        name = path.relative_to(ROOT).as_posix()
        if path.suffix in SUFFIXES and not EXCLUDED.fullmatch(name):
            yield name, path


def test_no_file_has_words_that_have_a_better_one():
    found = [
        f"{name}:{line}: {words!r}: better {better!r}"
        for name, path in documents()
        for line, words, better in sorted(dialect(path.read_text()))
    ]
    assert not found, f"{len(found)} places:\n" + "\n".join(found)


@pytest.mark.parametrize(
    "text",
    [
        "Filters are drawn by\n    # lot.",
        '"the two are not told "\n"apart"',
        "the run **goes on** behind it",
        "a metric that is to fall",
        "Whether a metric is no number.",
        "One batch in so many is scored.",
        "def take_up(self):",
        "take(many=3)",
        "The weights stand in the file.",
    ],
)
def test_such_words_are_found(text):
    assert list(dialect(text))


@pytest.mark.parametrize(
    "text",
    [
        "There is no filter, and there\n# are no layers.",
        "NaN stands for an empty field.",
        "It is no longer used.",
        "So many filters are dead that the network does not learn.",
        "Caches take up memory; there is room for two.",
        "many = 3 and many == 4",
        "It is part of the whole network.",
    ],
)
def test_correct_english_is_allowed(text):
    assert not list(dialect(text))
