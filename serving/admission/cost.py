"""What a request will cost, from what is known before its body is read."""

from dataclasses import dataclass

_RATE = 0.1  # of a new observation in the running means
_PCM_BYTES_PER_S = 32_000.0  # 16 kHz, 16 bits: until the callers have shown what they send
_TENANTS = 1_000  # whose habits are remembered


@dataclass(frozen=True, kw_only=True)
class Price:
    """Seconds of work: a fixed part and a part per second of audio."""

    per_request_s: float = 0.003
    per_audio_s: float = 0.02


class CostModel:
    """A calibrated price, corrected by what requests turn out to cost."""

    def __init__(self, price: Price | None = None) -> None:
        self.price = price or Price()
        self._factor = 1.0  # of the calibrated price, on this machine under this load
        self._mean_audio_s = 10.0
        self._audio_per_byte = 1.0 / _PCM_BYTES_PER_S
        self._of_tenant: dict[str, float] = {}

    def of_audio(self, audio_s: float) -> float:
        """Seconds of work of a recording."""
        return self._factor * (self.price.per_request_s + self.price.per_audio_s * audio_s)

    def of_body(self, tenant: str, content_length: int | None) -> float:
        """Seconds of work of a body that is not read yet; of unknown length: of a mean one."""
        if content_length is None:
            return self.of_audio(self._mean_audio_s)
        per_byte = self._of_tenant.get(tenant, self._audio_per_byte)
        return self.of_audio(content_length * per_byte)

    def observe(
        self, tenant: str, *, content_length: int | None, audio_s: float, work_s: float
    ) -> None:
        """What a request was, once it is answered."""
        expected_s = self.of_audio(audio_s) / self._factor
        factor = min(max(work_s / expected_s, 0.05), 20.0)
        self._factor += _RATE * (factor - self._factor)
        self._mean_audio_s += _RATE * (audio_s - self._mean_audio_s)
        if content_length:
            seen = audio_s / content_length
            self._audio_per_byte += _RATE * (seen - self._audio_per_byte)
            before = self._of_tenant.pop(tenant, seen)
            self._of_tenant[tenant] = before + _RATE * (seen - before)
            if len(self._of_tenant) > _TENANTS:
                del self._of_tenant[next(iter(self._of_tenant))]
