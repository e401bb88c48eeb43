import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from data.audio import encode_flac_pcm16, load_mono_16k
from data.ids import utterance_id
from data.manifest import Utterance
from data.shards import ShardWriter
from features.archive import ArchiveReport, FeatureArchive, extract
from features.cache import FeatureCache, write_pack
from features.compute import at_speed
from features.fbank import log_mel
from features.spec import FeatureSpec, FeatureSpecMismatch
from governance.canonical import tree_digest
from governance.errors import AuricleError, ConfigError, TamperError

SPEC = FeatureSpec()


class Corpus:
    """Real shards of noise bursts with a manifest in memory."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.utterances: list[Utterance] = []

    def add(
        self, shard_number: int, seeds: range, *, split: str = "train", rate_hz: int = 16_000
    ) -> "Corpus":
        placed = []
        with ShardWriter(self.root / "c", first_number=shard_number) as writer:
            for seed in seeds:
                samples_TC = tone(seed, rate_hz)[:, None]
                name = utterance_id(samples_TC.tobytes(), rate_hz, 1)
                flac = encode_flac_pcm16(samples_TC, rate_hz)
                placed.append((name, seed, len(samples_TC), writer.add(name, flac)))
            names = writer.close()
        for name, seed, length, placement in placed:
            self.utterances.append(
                Utterance(
                    utterance_id=name,
                    corpus="c",
                    shard=f"c/{names[placement.number]}",
                    offset=placement.offset,
                    length=placement.length,
                    text="",
                    normalised_text="",
                    normaliser="en-1",
                    speaker=f"s{seed % 3}",
                    language="en",
                    split=split,
                    licence="CC0",
                    consent=("train",),
                    source="made",
                    source_digest="sha256:0",
                    native_format="flac/pcm_16",
                    native_rate_hz=rate_hz,
                    native_channels=1,
                    duration_s=length / rate_hz,
                    level_dbfs=-20.0,
                    peak_dbfs=-3.0,
                    clipping_ratio=0.0,
                    dc_offset=0.0,
                    snr_db=20.0,
                    bandwidth_hz=8000.0,
                    speech_ratio=0.5,
                )
            )
        return self


def tone(seed: int, rate_hz: int) -> NDArray[np.float32]:
    generator = np.random.default_rng(seed)
    length = int(rate_hz * (0.3 + 0.05 * (seed % 5)))
    wave_T = 0.05 * generator.standard_normal(length)
    wave_T += 0.2 * np.sin(2 * np.pi * (300 + 40 * seed) * np.arange(length) / rate_hz)
    return wave_T.astype(np.float32)


def run(
    corpus: Corpus, base: Path, *, out: str = "out", cache: str = "cache", **options: object
) -> ArchiveReport:
    return extract(
        corpus.utterances,
        corpus.root,
        SPEC,
        base / cache,
        base / out,
        **options,  # type: ignore[arg-type]
    )


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    shards = Corpus(tmp_path / "shards")
    return shards.add(0, range(8)).add(1, range(20, 24), split="dev", rate_hz=8000)


def test_archive_returns_the_features_of_each_recording(corpus: Corpus, tmp_path: Path) -> None:
    report = run(corpus, tmp_path)
    archive = FeatureArchive(tmp_path / "out", expected_spec=SPEC)
    assert (report.computed, report.reused) == (12, 0)
    total = 0
    for utterance in corpus.utterances:
        tar = (corpus.root / utterance.shard).read_bytes()
        content = tar[utterance.offset : utterance.offset + utterance.length]
        expected = log_mel(load_mono_16k(content, name="x"), SPEC).astype(np.float16)
        found = archive.get(utterance.utterance_id)
        np.testing.assert_array_equal(found, expected)
        assert archive.frames(utterance.utterance_id) == len(expected)
        assert utterance.utterance_id in archive
        total += len(expected)
    assert report.frames == total
    assert report.seconds == pytest.approx(total / 100)


def test_new_audio_costs_only_itself(corpus: Corpus, tmp_path: Path) -> None:
    first = run(corpus, tmp_path)
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").glob("part-*")}
    corpus.add(2, range(50, 51))
    second = run(corpus, tmp_path)
    assert (second.computed, second.reused) == (1, 12)
    assert second.index_digest != first.index_digest
    after = {path.read_bytes() for path in (tmp_path / "out").glob("part-*")}
    assert set(before.values()) <= after  # partitions of old shards are byte for byte the same


def test_nothing_new_computes_nothing_and_needs_no_shard(corpus: Corpus, tmp_path: Path) -> None:
    first = run(corpus, tmp_path)
    for shard in (corpus.root / "c").iterdir():
        shard.unlink()
    again = run(corpus, tmp_path)
    assert (again.computed, again.reused) == (0, 12)
    assert again.index_digest == first.index_digest


def test_every_order_worker_count_and_folder_gives_the_same_bytes(
    corpus: Corpus, tmp_path: Path
) -> None:
    run(corpus, tmp_path, speeds=(0.9, 1.1))
    corpus.utterances.reverse()
    run(corpus, tmp_path, out="out2", cache="cache2", speeds=(1.1, 0.9))
    assert tree_digest(tmp_path / "out") == tree_digest(tmp_path / "out2")


def test_worker_processes_give_the_same_archive(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = run(corpus, tmp_path)
    monkeypatch.setattr("features.compute._BATCH_AUDIO_S", 1.0)
    seen: list[tuple[int, int]] = []
    together = run(
        corpus,
        tmp_path,
        out="out2",
        cache="cache2",
        workers=2,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert together == alone
    assert len(list((tmp_path / "cache2" / "packs").iterdir())) > 1
    assert seen[0] == (0, 12)
    assert seen[-1] == (12, 12)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_speeds_are_made_for_training_only(corpus: Corpus, tmp_path: Path) -> None:
    report = run(corpus, tmp_path, speeds=(0.9, 1.0, 1.1))
    archive = FeatureArchive(tmp_path / "out")
    assert report.computed == 8 * 3 + 4
    for utterance in corpus.utterances:
        expected = (0.9, 1.0, 1.1) if utterance.split == "train" else (1.0,)
        assert archive.speeds(utterance.utterance_id) == expected
    train = corpus.utterances[0].utterance_id
    assert archive.frames(train, 0.9) > archive.frames(train) > archive.frames(train, 1.1)
    with pytest.raises(AuricleError, match=r"no features of this utterance at speed 1\.1"):
        archive.get(corpus.utterances[-1].utterance_id, 1.1)


def test_speed_changes_length_and_pitch_together() -> None:
    wave_T = np.sin(2 * np.pi * 1000 * np.arange(16_000) / 16_000).astype(np.float32)
    faster_T = at_speed(wave_T, 1250, 16_000)
    assert len(faster_T) == 12_800
    spectrum = np.abs(np.fft.rfft(faster_T))
    assert spectrum.argmax() * 16_000 / len(faster_T) == pytest.approx(1250, abs=2)


def test_partitions_close_when_full_and_never_mix_shards(corpus: Corpus, tmp_path: Path) -> None:
    assert run(corpus, tmp_path).partitions == 2  # two shards
    corpus.add(2, range(100, 400))
    report = run(corpus, tmp_path, partition_max_mb=1)
    out = tmp_path / "out"
    archive = FeatureArchive(out)
    parts = sorted(out.glob("part-*.f16.npy"))
    assert report.partitions == len(parts) > 3
    shard_of = {utterance.utterance_id: utterance.shard for utterance in corpus.utterances}
    for number, path in enumerate(parts):
        assert path.stat().st_size <= 1_000_000 + 128
        rows = [row for row in archive.rows if row.partition == number]
        offsets = np.load(out / f"part-{number:05d}.offsets.npy")
        assert offsets.dtype == np.int64
        assert [*offsets] == [
            *(row.start_frame for row in rows),
            rows[-1].start_frame + rows[-1].frames,
        ]
        assert len({shard_of[row.utterance_id] for row in rows}) == 1
        assert [row.utterance_id for row in rows] == sorted(row.utterance_id for row in rows)


def test_norm_counts_the_train_split_at_speed_one(corpus: Corpus, tmp_path: Path) -> None:
    run(corpus, tmp_path, speeds=(0.9,))
    archive = FeatureArchive(tmp_path / "out")
    train = [u.utterance_id for u in corpus.utterances if u.split == "train"]
    x_TF = np.concatenate([archive.get(name) for name in train]).astype(np.float64)
    assert archive.norm.frames == len(x_TF)
    np.testing.assert_allclose(archive.norm.mean_F, x_TF.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(archive.norm.std_F, x_TF.std(axis=0), rtol=1e-4)


def test_without_a_train_split_there_is_no_norm(tmp_path: Path) -> None:
    corpus = Corpus(tmp_path / "shards").add(0, range(2), split="test")
    run(corpus, tmp_path)
    with pytest.raises(ConfigError, match=r"norm\.json"):
        _ = FeatureArchive(tmp_path / "out").norm


def test_a_recording_shorter_than_a_frame_has_none(tmp_path: Path) -> None:
    corpus = Corpus(tmp_path / "shards").add(0, range(2))
    with ShardWriter(corpus.root / "c", first_number=5) as writer:
        placement = writer.add("f" * 32, encode_flac_pcm16(np.zeros((160, 1), np.float32), 16_000))
        names = writer.close()
    short = replace(
        corpus.utterances[0],
        utterance_id="f" * 32,
        shard=f"c/{names[5]}",
        offset=placement.offset,
        length=placement.length,
    )
    corpus.utterances.append(short)
    run(corpus, tmp_path)
    assert FeatureArchive(tmp_path / "out").get("f" * 32).shape == (0, 80)


def test_another_front_end_is_another_cache_entry_and_is_refused_on_reading(
    corpus: Corpus, tmp_path: Path
) -> None:
    run(corpus, tmp_path)
    other = FeatureSpec(mel_bins=40)
    report = extract(corpus.utterances, corpus.root, other, tmp_path / "cache", tmp_path / "out40")
    assert report.computed == 12
    assert FeatureArchive(tmp_path / "out40").get(corpus.utterances[0].utterance_id).shape[1] == 40
    with pytest.raises(FeatureSpecMismatch, match="mel_bins is 40, expected 80"):
        FeatureArchive(tmp_path / "out40", expected_spec=SPEC)


def test_a_damaged_pack_is_named_and_its_deletion_mends_it(corpus: Corpus, tmp_path: Path) -> None:
    first = run(corpus, tmp_path)
    (pack,) = (tmp_path / "cache" / "packs").iterdir()
    content = bytearray(pack.read_bytes())
    content[1000] ^= 0xFF
    pack.write_bytes(content)
    with pytest.raises(TamperError, match=r"damaged.*Mend: delete this file") as caught:
        run(corpus, tmp_path)
    assert str(pack) in str(caught.value)
    with pytest.raises(ConfigError):
        FeatureArchive(tmp_path / "out")  # half an archive is none
    pack.unlink()
    mended = run(corpus, tmp_path)
    assert (mended.computed, mended.index_digest) == (12, first.index_digest)


def test_a_truncated_pack_is_computed_again(corpus: Corpus, tmp_path: Path) -> None:
    first = run(corpus, tmp_path)
    (pack,) = (tmp_path / "cache" / "packs").iterdir()
    pack.write_bytes(pack.read_bytes()[: 100 * 160])
    again = run(corpus, tmp_path)
    assert 0 < again.computed < 12
    assert again.index_digest == first.index_digest


def test_packs_without_entries_are_only_litter(corpus: Corpus, tmp_path: Path) -> None:
    write_pack(tmp_path / "cache" / "packs", [(("x", 1000), np.ones((3, 80), np.float16))])
    assert run(corpus, tmp_path).computed == 12


def test_many_processes_may_fill_one_cache(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(3, mp_context=context) as pool:
        for future in [pool.submit(_fill, tmp_path, start) for start in (0, 10, 20)]:
            future.result()
    cache = FeatureCache(tmp_path, SPEC)
    entries = cache.entries()
    assert len(entries) == 40
    for (name, _), entry in entries.items():
        np.testing.assert_array_equal(cache.read(entry), np.full((4, 80), int(name), np.float16))


def _fill(folder: Path, start: int) -> None:
    cache = FeatureCache(folder, SPEC)
    for number in range(start, start + 20):
        x_TF = np.full((4, 80), number, np.float16)
        cache.add(write_pack(cache.packs, [((str(number), 1000), x_TF)]))


def test_archive_travels_to_worker_processes_without_its_data(
    corpus: Corpus, tmp_path: Path
) -> None:
    run(corpus, tmp_path)
    archive = FeatureArchive(tmp_path / "out")
    name = corpus.utterances[0].utterance_id
    features = archive.get(name)
    pickled = pickle.dumps(archive)
    assert len(pickled) < features.nbytes
    np.testing.assert_array_equal(pickle.loads(pickled).get(name), features)
    with pytest.raises(ValueError, match="read-only"):
        features[0, 0] = 0


def test_lost_shard_twice_listed_and_odd_speed_are_named(corpus: Corpus, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="3 is not between"):
        run(corpus, tmp_path, speeds=(3.0,))
    corpus.utterances.append(corpus.utterances[0])
    with pytest.raises(ConfigError, match=f"{corpus.utterances[0].utterance_id}: listed twice"):
        run(corpus, tmp_path)
    corpus.utterances.pop()
    (corpus.root / corpus.utterances[0].shard).unlink()
    with pytest.raises(AuricleError, match="shard-00000"):
        run(corpus, tmp_path)
