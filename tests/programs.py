"""Programs run again: nothing of the run before may matter, in their rooms least of all."""

from spikeprune.runtime.program import Program


def run_again(made):
    """Run a program whose rooms hold NaN and -1."""
    made._furnish()
    for room in made._rooms.values():
        room.fill_(255)
    made.run()


def runs_each(prepare, put, inputs):
    """Give a program's results for several inputs, one after the other, and then for the first again.

    prepare(program) puts calls at its end and returns what holds the results, put(x) an input where it is read.
    """
    made, found = Program(), []
    held = prepare(made)
    for x in [*inputs, inputs[0]]:
        put(x)
        run_again(made)
        found.append(getattr(held, "words", held).clone())
    return found
