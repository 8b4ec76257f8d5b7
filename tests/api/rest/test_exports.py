"""Exports: asked for, refused while there is nothing to export, downloaded whole and in parts."""

import base64
import hashlib
from pathlib import Path
from typing import Any

import pytest

from api.forms import FORMS, form_of
from db.store import Store
from tests.api.rest.conftest import Site, a_study, assert_problem, finished, open_trial, told_trial
from tests.search.factories import scored

CONTENT = bytes(range(256)) * 40
FILES = {"model.safetensors": CONTENT, "config.json": b"{}", "sub/more.txt": b"more", "sub/odd näme #1?": b"odd"}


def exported(site: Site, folder: Path | None = None) -> str:
    """An export that a clerk has written; its path."""
    finished(site.store)
    where: str = site.post("/v1/studies/test/exports").headers["location"]
    lease = site.store.jobs.claim_next(["export"], "clerk", 60)
    assert lease is not None and lease.job.content == {"study": "test", "trial": 1, "as": "full", "settings": {}}
    place = folder or site.settings.exports / "test" / "1"
    listed = []
    for name, content in FILES.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(content)
        listed.append({"name": name, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()})
    (place / "unlisted").write_text("x")
    assert site.store.jobs.finish(lease, {"folder": str(place), "files": listed})
    return where


def test_an_export_is_a_job_that_ends_with_files(any_site: Site) -> None:
    finished(any_site.store)
    answer = any_site.post("/v1/studies/test/exports", {"trial": 0})
    assert answer.status_code == 202 and answer.json()["state"] == "queued" and answer.json()["trial"] == 0
    assert any_site.get(answer.headers["location"]).json() == answer.json()
    lease = any_site.store.jobs.claim_next(["export"], "clerk", 60)
    assert lease is not None and any_site.store.jobs.finish(
        lease, {"folder": "/x", "files": [{"name": "a", "bytes": 1, "sha256": "00"}]}
    )
    done = any_site.get(answer.headers["location"]).json()
    assert done["state"] == "done" and done["files"][0]["url"] == f"{answer.headers['location']}/files/a"
    any_site.post("/v1/studies/test/exports")
    listed = any_site.get("/v1/studies/test/exports?limit=1").json()
    assert listed["items"] == [done]
    following = any_site.get(f"/v1/studies/test/exports?limit=1&cursor={listed['next']}").json()
    assert [e["trial"] for e in following["items"]] == [1] and following["next"] is None


def test_an_unfinished_study_has_no_winner_to_export(any_site: Site) -> None:
    study = a_study(any_site.store)
    told_trial(any_site.store, study, 0, scored(0.5))
    open_trial(any_site.store, study, 1)
    assert_problem(any_site.post("/v1/studies/test/exports"), 409, "conflict", "is running", "no winner", "trial")
    assert_problem(any_site.post("/v1/studies/test/exports", {"trial": 1}), 409, "conflict", "trial 1", "is open")
    assert_problem(any_site.post("/v1/studies/test/exports", {"trial": 2}), 404, "not-found", "no trial 2")
    assert any_site.store.jobs.of_study(study.id, "export") == ()
    assert any_site.post("/v1/studies/test/exports", {"trial": 0}).status_code == 202


@pytest.mark.parametrize("body", [{"trail": 1}, {"trial": "x"}, {"trial": -1}, {"trial": 2**40}, [], {"trial": 1.5}])
def test_a_request_that_asks_for_something_else_is_refused(site: Site, body: Any) -> None:
    finished(site.store)
    assert_problem(site.post("/v1/studies/test/exports", body), 422, "invalid-input", '{"trial": NUMBER}')


def test_a_form_is_kept_with_its_settings(any_site: Site) -> None:
    study = finished(any_site.store)
    for form, settings in (("full", {}), ("lora", {"rank": 4}), ("sparse", {"density": 0.2, "bits": 32}), ("xor", {})):
        body = {"trial": 0, "as": form} | ({"settings": settings} if settings else {})
        answer = any_site.post("/v1/studies/test/exports", body)
        assert answer.status_code == 202, answer.text
        assert (answer.json()["as"], answer.json()["settings"]) == (form, settings)
        assert any_site.get(answer.headers["location"]).json() == answer.json()
    asked = [form_of(job.content) for job in any_site.store.jobs.of_study(study.id, "export")]
    assert [one.name for one in asked] == ["full", "lora", "sparse", "xor"]
    assert asked[2].settings == {"density": 0.2, "bits": 32.0}


REFUSED_FORMS = (
    ({"as": "zip"}, "as", "zip", "use one of full, lora, bitdelta"),
    ({"as": "lora", "settings": {"density": 0.1}}, "settings.density", 0.1, "its settings: energy, rank"),
    ({"as": "lora", "settings": {"rank": 1.5}}, "settings.rank", 1.5, "a whole number"),
    ({"as": "sparse", "settings": {"density": 2}}, "settings.density", 2, "a value in [1e-06, 1]"),
    ({"as": "sparse", "settings": {"densty": 0.1}}, "settings.densty", 0.1, "its settings: density, bits"),
    ({"as": "sparse", "settings": {"density": "0.1"}}, "settings.density", "0.1", '{"settings": {NAME: NUMBER}}'),
    ({"as": "sparse", "settings": {"density": True}}, "settings.density", True, '{"settings": {NAME: NUMBER}}'),
    ({"as": "sparse", "settings": ["density"]}, "settings", ["density"], '{"settings": {NAME: NUMBER}}'),
    ({"settings": {"rank": 4}}, "settings", "rank", "leave it out"),
    ({"as": None}, "as", None, '{"as": FORM}'),
    ({"form": "lora"}, "form", "lora", '{"as": FORM}'),
)


@pytest.mark.parametrize(("body", "key", "value", "remedy"), REFUSED_FORMS)
def test_a_form_that_is_none_is_refused_before_anything_is_queued(
    site: Site, body: Any, key: str, value: Any, remedy: str
) -> None:
    study = finished(site.store)
    problem = assert_problem(site.post("/v1/studies/test/exports", body), 422, "invalid-input", key)
    assert problem["key"] == key and problem.get("value") == value and remedy in problem["remedy"]
    assert site.store.jobs.of_study(study.id, "export") == ()


def test_an_export_of_an_earlier_version_is_a_full_checkpoint(site: Site) -> None:
    study = finished(site.store)
    job = site.store.jobs.add("export", {"study": "test", "trial": 1}, study_id=study.id)
    shown = site.get(f"/v1/exports/{job.id}").json()
    assert (shown["as"], shown["settings"]) == ("full", {})


def test_another_form_is_another_request(site: Site) -> None:
    finished(site.store)
    key, asked = {"Idempotency-Key": "k"}, {"as": "lora", "settings": {"rank": 4}}
    first, again = (site.post("/v1/studies/test/exports", asked, **key) for _ in range(2))
    assert first.status_code == 202 and first.json() == again.json()
    for other in ({}, {"as": "lora"}, {"as": "lora", "settings": {"rank": 8}}):
        answer = site.post("/v1/studies/test/exports", other, **key)
        assert_problem(answer, 422, "invalid-input", "another request")
    plain = {"Idempotency-Key": "plain"}
    same = [site.post("/v1/studies/test/exports", body, **plain).json()["id"] for body in (None, {}, {"as": "full"})]
    assert len({*same}) == 1


def test_forms_are_documented(site: Site) -> None:
    schemas = site.get("/v1/openapi.json").json()["components"]["schemas"]
    asked = schemas["ExportRequest"]["properties"]
    assert set(asked) == {"trial", "as", "settings"} and asked["as"]["enum"] == list(FORMS)
    assert {"as", "settings"} <= set(schemas["Export"]["required"])


def test_the_same_request_again_is_the_same_export(site: Site) -> None:
    finished(site.store)
    key = {"Idempotency-Key": "k"}
    first, again = (site.post("/v1/studies/test/exports", {"trial": 0}, **key) for _ in range(2))
    assert first.status_code == again.status_code == 202 and first.json() == again.json()
    assert_problem(site.post("/v1/studies/test/exports", {"trial": 1}, **key), 422, "invalid-input", "another request")


def test_an_export_that_failed_says_why(site: Site) -> None:
    finished(site.store)
    where = site.post("/v1/studies/test/exports").headers["location"]
    lease = site.store.jobs.claim_next(["export"], "clerk", 60)
    assert lease is not None and site.store.jobs.refuse(lease, {"status": 409, "detail": "the models have changed"})
    shown = site.get(where).json()
    assert shown["state"] == "failed" and shown["problem"]["detail"] == "the models have changed"
    assert_problem(site.get(f"{where}/files/config.json"), 409, "conflict", "is failed")


def test_files_are_downloaded_with_their_checksums(any_site: Site) -> None:
    where = exported(any_site)
    for file in any_site.get(where).json()["files"]:
        answer = any_site.get(file["url"])
        digest = hashlib.sha256(answer.content)
        assert answer.content == FILES[file["name"]] and digest.hexdigest() == file["sha256"]
        assert answer.headers["repr-digest"] == f"sha-256=:{base64.b64encode(digest.digest()).decode()}:"
        assert (
            answer.headers["etag"] == f'"{file["sha256"]}"' and int(answer.headers["content-length"]) == file["bytes"]
        )
        assert answer.headers["content-disposition"].startswith("attachment")


def test_what_is_known_is_not_sent_again(site: Site) -> None:
    url = exported(site) + "/files/model.safetensors"
    etag = site.get(url).headers["etag"]
    for known in (etag, f'"x", {etag}', "*"):
        answer = site.get(url, **{"If-None-Match": known})
        assert answer.status_code == 304 and answer.content == b"" and answer.headers["etag"] == etag
    assert site.get(url, **{"If-None-Match": '"x"'}).status_code == 200


def test_a_download_goes_on_where_it_was_cut(site: Site) -> None:
    url = exported(site) + "/files/model.safetensors"
    etag = site.get(url).headers["etag"]
    part = site.get(url, Range="bytes=1000-", **{"If-Range": etag})
    assert part.status_code == 206 and part.content == CONTENT[1000:]
    assert part.headers["content-range"] == f"bytes 1000-{len(CONTENT) - 1}/{len(CONTENT)}"
    assert site.get(url, Range="bytes=5-9").content == CONTENT[5:10]
    assert site.get(url, Range="bytes=-7").content == CONTENT[-7:]
    changed = site.get(url, Range="bytes=1000-", **{"If-Range": '"another"'})
    assert changed.status_code == 200 and changed.content == CONTENT
    head = site.client.head(url, headers=site.headers())
    assert head.status_code == 200 and head.content == b"" and int(head.headers["content-length"]) == len(CONTENT)


@pytest.mark.parametrize("wanted", ["bytes=99999-", "bytes=9-1", "lines=1-2", "bytes=x"])
def test_a_range_that_is_none_is_refused(site: Site, wanted: str) -> None:
    answer = site.get(exported(site) + "/files/model.safetensors", Range=wanted)
    assert_problem(answer, 416, "wrong-range", f"{len(CONTENT)} bytes")
    assert answer.headers["content-range"] == f"bytes */{len(CONTENT)}"


UNLISTED = (
    *("unlisted", "nothing", "sub", "", "config.json%00", "%2fetc%2fpasswd"),
    *("%2e%2e", "%2e%2e/secret", "..%2fsecret", "sub/%2e%2e/config.json", "./config.json%2f."),
)


@pytest.mark.parametrize("name", UNLISTED)
def test_only_what_is_listed_is_served(site: Site, name: str) -> None:
    where = exported(site)
    (site.settings.exports / "test" / "secret").write_text("x")
    answer = site.get(f"{where}/files/{name}")
    assert answer.status_code == 404 and answer.headers["content-type"] == "application/problem+json"


def test_an_export_elsewhere_or_through_a_link_is_not_served(site: Site, tmp_path: Path) -> None:
    where = exported(site, tmp_path / "elsewhere")
    assert_problem(site.get(f"{where}/files/config.json"), 404, "not-found", "gone")


def test_a_file_that_became_a_link_is_not_served(site: Site, tmp_path: Path) -> None:
    where = exported(site)
    (tmp_path / "secret").write_text("secret")
    file = site.settings.exports / "test" / "1" / "config.json"
    file.unlink()
    assert_problem(site.get(f"{where}/files/config.json"), 404, "not-found", "gone")
    file.symlink_to(tmp_path / "secret")
    assert_problem(site.get(f"{where}/files/config.json"), 404, "not-found", "gone")


def test_an_unknown_export_is_said_so(site: Site, store: Store) -> None:
    check = store.jobs.add("check", {})
    for number in (check.id, 999):
        assert_problem(site.get(f"/v1/exports/{number}"), 404, "not-found")
        assert_problem(site.get(f"/v1/exports/{number}/files/x"), 404, "not-found")
