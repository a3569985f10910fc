"""A recipe that was taken out of the project file for a while knows nothing of what happened meanwhile."""

from __future__ import annotations

from projects import ProjectFolder

CHAIN = """
[recipe.line]
needs = ["bio"]
model = "gpt-6-luna"
input = "Shorten: {{ bio.text }}"
"""


def test_what_changed_while_nobody_needed_it_is_noticed(project: ProjectFolder) -> None:
    project.configure(more=CHAIN)
    project.run("run").ok()
    project.configure()
    project.edit("bioforge.toml", "Write a biography.", "Write a short biography.")
    project.run("run").ok()
    project.configure(more=CHAIN)
    project.edit("bioforge.toml", "Write a biography.", "Write a short biography.")
    assert project.reasons() == {"changed": 4}
    project.run("run").ok()
    texts = dict(project.rows("SELECT artist_id, text FROM results WHERE recipe = 'bio'"))
    bodies = project.rows(
        "SELECT r.artist_id, q.body FROM results r JOIN requests q USING (request_hash) WHERE r.recipe = 'line'"
    )
    assert all(texts[artist].split(":")[0] in body for artist, body in bodies)
