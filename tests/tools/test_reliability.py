"""The short form of tools/reliability/run.py: a kill while saving, and bad images."""

from helpers.command import load_tool


def test_short_form(tmp_path):
    harness = load_tool("reliability/run.py")
    options = ["--work-dir", str(tmp_path), "--kills", "8"]
    results = harness.main([*options, "--only", "kills-1-1", "poison-nan-1"])
    killed = results["kills-1-1"]
    assert killed["kills"] == 2
    assert (killed["lost"], killed["unequal"]) == (0, [])
    bad = results["poison-nan-1"]
    assert bad["exit codes"] == [0]
    assert bad["skipped"] == bad["bad steps"] == 8
    assert bad["finite"]
    # What is done is not done again.
    again = harness.main([*options, "--only", "kills-1-1"])
    assert again == {"kills-1-1": killed}
