"""Names on the Hugging Face hub: downloaded from a hub on this machine with its own client, cached, pinned, refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import huggingface_hub
import pytest
import safetensors.torch
import timm
import torch
from huggingface_hub import constants
from timm.models import save_for_hf

from tests.checkpoints.hub_server import Hub, serving
from tests.helpers import SMALL, TWO_STAGES, refused_as, small_images, small_tofe
from tofe_export.api.export import export
from tofe_export.api.inspect import inspect
from tofe_export.api.load import load
from tofe_export.api.verify import verify
from tofe_export.checkpoints.checkpoint import Checkpoint, save
from tofe_export.checkpoints.hub import HubName, hub_name, local, origin_of, pinned
from tofe_export.data.preprocessing import Preprocessing
from tofe_export.documents.hub import HubRevision
from tofe_export.errors import MissingError
from tofe_export.model.config import ToFeConfig
from tofe_export.model.tofe import ToFe, build_tofe
from tofe_export.training.setup import load_init

NAME = "owner/vit"
WEIGHTS = "model.safetensors"
Stop = Callable[[], None]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """An empty hub, an empty cache; the client reads its environment once, so its constants are changed."""
    with serving(Hub()) as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no token"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        yield hub


@pytest.fixture
def unplug(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> Stop:
    """Takes the network away: nothing answers at the hub's address."""

    def stop() -> None:
        monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", "http://127.0.0.1:9/{repo_id}/resolve/{revision}/{filename}"
        )

    return stop


def saved(folder: Path, seed: int = 0, safe: bool = True) -> tuple[dict[str, bytes], torch.nn.Module]:
    """A small ViT of timm, and its files as timm saves them for the hub."""
    torch.manual_seed(seed)
    model = timm.create_model("vit_tiny_patch16_224", **SMALL).eval()
    save_for_hf(model, folder, model_args=SMALL, safe_serialization=safe)
    return files_in(folder), model


def files_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("prefix", ["hf-hub:", "hf_hub:"])
def test_a_network_is_downloaded_once(prefix: str, hub: Hub, unplug: Stop, tmp_path: Path) -> None:
    files, model = saved(tmp_path / "saved")
    commit = hub.commit(NAME, {**files, "pytorch_model.bin": b"not read", "README.md": b"not read"})
    loaded = load(f"{prefix}{NAME}")
    assert loaded.hub == HubRevision(repository=NAME, revision=commit)
    assert loaded.path == tmp_path / "cache" / "models--owner--vit" / "snapshots" / commit / WEIGHTS
    assert not loaded.assumed  # config.json came along
    images = small_images(2)
    torch.testing.assert_close(loaded.model.vit(images), model(images))
    downloaded = {request.rpartition("/")[2] for request in hub.asked if request.startswith("GET /owner")}
    assert downloaded == {"config.json", WEIGHTS}
    hub.asked.clear()
    assert load(f"{prefix}{NAME}").weights_sha256 == loaded.weights_sha256
    assert hub.asked == [f"GET /api/models/{NAME}/revision/main"]  # whether it is still the newest
    unplug()
    assert load(f"{prefix}{NAME}").weights_sha256 == loaded.weights_sha256


def test_older_files_and_own_checkpoints(hub: Hub, tmp_path: Path) -> None:
    hub.commit("owner/old", saved(tmp_path / "old", safe=False)[0])
    assert load("hf-hub:owner/old").recognised == "plain backbone, dense"
    model = small_tofe(**TWO_STAGES)
    save(tmp_path / "run" / "ckpt.pth", Checkpoint(model, (0.5, 0.3), Preprocessing.of_backbone(model.vit)))
    hub.commit("owner/own", files_in(tmp_path / "run"))
    assert load("hf-hub:owner/own").keep_ratios == (0.5, 0.3)


def test_every_shard_of_an_index_is_downloaded(hub: Hub, tmp_path: Path) -> None:
    files, model = saved(tmp_path / "saved")
    shards, state = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"], model.state_dict()
    places = {key: shards[number % 2] for number, key in enumerate(state)}
    contents = {
        shard: safetensors.torch.save({key: value for key, value in state.items() if places[key] == shard})
        for shard in shards
    }
    index = {"model.safetensors.index.json": json.dumps({"weight_map": places}).encode()}
    hub.commit(NAME, {"config.json": files["config.json"], **index, **contents, "other": b"not read"})
    loaded = load(f"hf-hub:{NAME}")
    torch.testing.assert_close(loaded.model.vit.state_dict(), state)
    assert loaded.hub is not None
    assert not any("other" in request for request in hub.asked)


def test_a_shard_that_lies_elsewhere_is_not_asked_for(hub: Hub) -> None:
    index = {"weight_map": {"a": "../../../outside", "b": "/etc/outside", "c": "sub/outside"}}
    hub.commit(NAME, {"model.safetensors.index.json": json.dumps(index).encode()})
    local(Path(f"hf-hub:{NAME}"))
    assert not any("outside" in request for request in hub.asked)


def test_training_starts_from_a_name(hub: Hub, tmp_path: Path) -> None:
    files, model = saved(tmp_path / "saved")
    hub.commit(NAME, files)
    network: ToFe = build_tofe(ToFeConfig("vit_tiny_patch16_224", SMALL))
    load_init(network, Path(f"hf-hub:{NAME}"))
    torch.testing.assert_close(network.vit.state_dict(), model.state_dict())


def test_verify_takes_the_revision_of_the_manifest(hub: Hub, unplug: Stop, tmp_path: Path) -> None:
    first = hub.commit(NAME, saved(tmp_path / "first")[0])
    artifact = export(f"hf-hub:{NAME}", tmp_path / "model.onnx", data="photos")
    assert artifact.manifest.hub == HubRevision(repository=NAME, revision=first)
    second = hub.commit(NAME, saved(tmp_path / "second", seed=1)[0])
    result = verify(artifact.path, against=f"hf-hub:{NAME}", data="photos", samples=4)
    assert (result.passed, result.against) == (True, f"hf-hub:{NAME}")
    assert [first in note for note in result.artifacts[0].notes] == [True]
    named = verify(artifact.path, against=f"hf-hub:{NAME}@{second}", data="photos", samples=4)
    assert (named.passed, named.artifacts[0].notes) == (False, ())
    assert "another checkpoint" in named.failures[0]
    unplug()
    assert verify(artifact.path, against=f"hf-hub:{NAME}", data="photos", samples=4).passed


def test_models_of_two_revisions_are_each_verified_against_their_own(hub: Hub, tmp_path: Path) -> None:
    artifacts = []
    for seed in range(2):
        hub.commit(NAME, saved(tmp_path / str(seed), seed)[0])
        artifacts.append(export(f"hf-hub:{NAME}", tmp_path / f"{seed}.onnx", data="photos"))
    assert verify(artifacts, against=f"hf-hub:{NAME}", data="photos", samples=4).passed


def test_another_revision_can_be_named(hub: Hub, tmp_path: Path) -> None:
    first = hub.commit(NAME, saved(tmp_path / "first")[0])
    hub.commit(NAME, saved(tmp_path / "second", seed=1)[0])
    inspection = inspect(f"hf-hub:{NAME}@{first}")
    assert inspection.kind == "checkpoint"
    assert inspection.hub == HubRevision(repository=NAME, revision=first)
    assert load(f"hf-hub:{NAME}").weights_sha256 != load(f"hf-hub:{NAME}@{first}").weights_sha256


def test_without_a_network_it_says_how_to_bring_the_files(hub: Hub, unplug: Stop) -> None:
    hub.commit(NAME, {"model.safetensors": b""})
    unplug()
    with refused_as("hub-not-reached", MissingError) as caught:
        load(f"hf-hub:{NAME}@v1")
    assert f"hf download {NAME} --revision v1 --local-dir DIR" in caught.value.next_step
    assert caught.value.exit_code == 3


def test_offline_mode_asks_nobody(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.commit(NAME, saved(tmp_path / "saved")[0])
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with refused_as("hub-not-reached", MissingError) as caught:
        load(f"hf-hub:{NAME}")
    assert "HF_HUB_OFFLINE is set" in caught.value.message
    assert not hub.asked
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    load(f"hf-hub:{NAME}")
    hub.asked.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    load(f"hf-hub:{NAME}")
    assert not hub.asked


def test_a_download_that_broke_off_is_not_taken_for_the_whole(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = hub.commit(NAME, {"config.json": b"{}", WEIGHTS: b"x"})
    huggingface_hub.hf_hub_download(NAME, "config.json", revision=commit)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)  # without it the client tries again for most of a minute
    with refused_as("hub-not-reached", MissingError):
        local(Path(f"hf-hub:{NAME}@{commit}"))


@pytest.mark.parametrize(
    ("name", "code", "step"),
    [
        ("hf-hub:nobody/nothing", "hub-no-repository", "hf auth login"),
        ("timm/nothing", "hub-no-repository", "Check the name"),
        ("timm/vit_tiny_patch16_224", "hub-no-repository", "timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k"),
        (f"hf-hub:{NAME}@nowhere", "hub-no-revision", "a branch, a tag or a commit"),
        (f"hf-hub:{NAME}@{'0' * 40}", "hub-no-revision", "a branch, a tag or a commit"),
        ("hf-hub:owner/gated", "hub-gated", "hf auth login"),
        ("hf-hub:owner/empty", "hub-no-weights", "Choose a repository"),
    ],
)
def test_what_the_hub_does_not_give(name: str, code: str, step: str, hub: Hub) -> None:
    hub.commit(NAME, {WEIGHTS: b"x", "config.json": b"{}"})
    hub.commit("owner/gated", {WEIGHTS: b"x", "config.json": b"{}"})
    hub.gated.add("owner/gated")
    hub.commit("owner/empty", {"config.json": b"{}"})
    with refused_as(code) as caught:
        load(name)
    assert step in caught.value.next_step


@pytest.mark.parametrize(
    "name",
    [
        *("hf-hub:", "hf-hub:vit", "hf-hub:a/b/c", "hf-hub:../b", "hf-hub:a/..", "hf-hub:/etc/passwd", "hf-hub:a/b@"),
        *("hf-hub:a/b@../../x", "hf-hub:a/b@x/../../y", "hf-hub:a/b@/etc", "hf-hub:a/b@-x", "hf-hub:a/b c"),
        *("hf-hub:a--b/c", "hf-hub:a/b.git", "hf-hub:a/b-", "hf-hub:a/" + "b" * 200, "hf-hub:a/b@x@y", r"hf-hub:a\b"),
    ],
)  # fmt: skip
def test_other_names_are_refused_before_anything_is_asked(name: str, hub: Hub) -> None:
    with refused_as("hub-name"):
        load(name)
    assert not hub.asked


def test_names_of_files_stay_names_of_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert hub_name(Path("timm/vit")) == HubName("timm/vit")
    assert hub_name(Path("timm/vit.a@v1")) == HubName("timm/vit.a", "v1")
    (tmp_path / "timm" / "vit").mkdir(parents=True)
    for name in ("timm/vit", "timm/vit.pth", "./other/vit", "timm/a/b", "/timm/vit", "timm"):
        assert hub_name(Path(name)) is None
        assert local(Path(name)) == Path(name)


def test_only_files_in_the_cache_have_an_origin() -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    snapshot = Path("/cache/models--a--b/snapshots")
    assert origin_of(snapshot / commit / WEIGHTS) == HubRevision(repository="a/b", revision=commit)
    for path in (snapshot / "main" / WEIGHTS, Path(commit) / WEIGHTS, Path("x.pth"), Path("/x.pth")):
        assert origin_of(path) is None


def test_a_pin_is_for_the_same_repository_without_a_revision() -> None:
    before = HubRevision(repository="a/b", revision="c0ffee")
    assert pinned(Path("hf-hub:a/b"), before) == Path("hf-hub:a/b@c0ffee")
    for name in ("hf-hub:a/b@v2", "hf-hub:a/other", "run/ckpt.pth"):
        assert pinned(Path(name), before) == Path(name)
    assert pinned(Path("hf-hub:a/b"), None) == Path("hf-hub:a/b")


def test_a_resized_network_keeps_its_origin(hub: Hub, tmp_path: Path) -> None:
    commit = hub.commit(NAME, saved(tmp_path / "saved")[0])
    assert load(f"hf-hub:{NAME}", image_size=48).hub == HubRevision(repository=NAME, revision=commit)
