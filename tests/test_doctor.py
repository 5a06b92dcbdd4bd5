"""``shifter-admin doctor`` is the launcher's own."""

from tests.conftest import Runner


def test_the_administrators_doctor_is_the_launchers(run: Runner) -> None:
    assert run("shifter-admin", "init", "--private").returncode == 0
    done = run("shifter-admin", "doctor", "--image=absent")
    launchers = run("shifter", "--doctor", "--image=absent")
    assert (done.stdout, done.stderr) == (launchers.stdout, launchers.stderr)
    assert (done.returncode, launchers.returncode) == (1, 1)
    assert "WRONG store" in done.stdout


def test_a_store_can_be_named(run: Runner) -> None:
    done = run("shifter-admin", "doctor", "--store=/no/such/store")
    assert "WRONG store: there is no store at '/no/such/store'" in done.stdout
    assert run("shifter-admin", "--store=/no/such/store", "doctor").stdout == done.stdout
