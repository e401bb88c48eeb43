"""Limits and choices of one service process, filled from the environment by `service.py`."""

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class JobSettings:
    """Jobs and webhooks; without them the service keeps no job."""

    folder: Path  # database and uploads; readable by this user only
    database: str = field(default="", repr=False)  # postgresql://...; empty: SQLite in the folder
    redis: str = field(default="", repr=False)  # redis://...; empty: workers look by themselves
    lease_s: float = 30.0  # a silent worker's job goes to another after this
    max_attempts: int = 3  # runs of one job that end with a crash or a failure of ours
    ttl_s: float = 72 * 3600.0  # from a job's end until its transcript and webhook are forgotten
    max_open_jobs: int = 1000  # of one tenant; more are refused with 429
    runners: int = 2  # jobs at once in this process
    webhook_timeout_s: float = 15.0  # of one attempt
    webhook_backoff_s: float = 5.0  # ceiling of the first delay; it doubles up to six hours
    webhook_attempts: int = 15
    webhook_traceparent: bool = False  # receivers are told the trace of the job's request
    url_hosts: tuple[str, ...] = ()  # that audio may be fetched from: a.example, *.example or *
    object_prefixes: tuple[str, ...] = ()  # that audio may be read from, such as s3://bucket/folder
    outbound_openings: str = ""  # CIDR:PORT,... that may be reached besides global addresses
    outbound_ca_file: Path | None = None  # a private certificate authority
    failpoints_dir: Path | None = None  # for kill proofs only


@dataclass(frozen=True, kw_only=True)
class ProtectionSettings:
    """Who is let in, and where what they used is recorded."""

    keys_path: Path | None = None  # key store; None: the service's own machine, as one tenant
    records_dir: Path | None = None  # usage and access log; None: beside the key store, or nowhere
    open_to_network: bool = False  # answer other machines although there is no key store
    origins: tuple[str, ...] = ()  # of pages on other sites that may use the service
    page_key_path: Path | None = None  # its key is handed to the operator's own page on loopback
    token_stream_s: float = 4 * 3600.0  # a client token's open stream goes on so long after its end


@dataclass(frozen=True, kw_only=True)
class AdoptedSettings:
    """A pretrained model that is served beside Auricle's own, under its own name."""

    name: str
    folder: Path  # of a Whisper model in CTranslate2's form
    aliases: tuple[str, ...] = ()  # names that requests may use besides its own and NAME@VERSION
    threads: int = 0  # model calls side by side; 0: one for each core
    compute_type: str = "int8"  # or float32 and whatever else this CTranslate2 offers
    fitted: bool = False  # encode the audio instead of 30 s: faster, and not the very same text


@dataclass(frozen=True, kw_only=True)
class TraceSettings:
    """Where traces go, and how many."""

    endpoint: str  # of a collector that takes OTLP over HTTP, such as http://127.0.0.1:4318
    share: float = 1.0  # of requests whose caller has not decided


@dataclass(frozen=True, kw_only=True)
class ServeSettings:
    """What an operator may choose."""

    bundle_dir: Path  # the model bundle
    light_bundle_dir: Path | None = None  # int8 bundle of the same model, for times of pressure
    priors_path: Path | None = None  # key-value view of speakers' priors; None: every start is cold
    model_version: str = ""  # the registry's version; empty: the head of the bundle's digest
    live_dir: Path | None = None  # where `auricle swap` tells which version to serve; None: nowhere
    # Names that requests may use besides the model's own and name@version.
    model_aliases: tuple[str, ...] = ("auricle", "auricle@champion")
    threads: int = 1  # threads of one model call
    provider: str = "cpu"  # cpu or cuda
    workers: int = 2  # threads for audio decoding, features and word decoding
    chunk_ms: int | None = None  # model chunk of live streams; None: the bundle's nearest to 640
    cache_dir: Path | None = None  # keeps what was measured of this machine for the next start
    max_upload_bytes: int = 256 << 20
    max_duration_s: float = 4 * 3600.0  # of one uploaded recording
    max_waiting_requests: int = 64  # uploads in work or waiting; more are refused with 429
    max_wait_s: float = 5.0  # expected wait beyond which uploads are refused before they are read
    request_deadline_s: float = 600.0  # a row that waited longer for the model is dropped
    degrade: bool = True  # under lasting pressure give up the language model before refusing
    max_streams: int = 32  # live streams; more are refused before the upgrade
    stream_idle_s: float = 12.0  # without any message, then the stream ends
    stream_session_s: float = 4 * 3600.0  # longest live stream
    stream_keep_s: float = 30.0  # a resumable stream waits so long for its client's return
    stream_unsent_bytes: int = 1 << 20  # results that a live stream's client may leave unread ...
    stream_unsent_s: float = 10.0  # ... and for how long it may read nothing; then it is closed
    max_frame_bytes: int = 4 << 20  # of one WebSocket message
    drain_s: float = 25.0  # how long a stopping process waits for its live streams
    prior_deadline_ms: float = 20.0  # a later answer of the prior view means a cold start
    tenant: str = "default"
    jobs: JobSettings | None = None
    protection: ProtectionSettings = ProtectionSettings()
    trace: TraceSettings | None = None  # None: nothing is traced
    adopted: tuple[AdoptedSettings, ...] = ()
