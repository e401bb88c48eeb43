// What went wrong, in words, and what to do about it.
export class Problem extends Error {
  constructor(title, text, status = 0) {
    super(text);
    this.title = title;
    this.status = status;
  }
}

const MICROPHONE = {
  NotAllowedError: ["The microphone is blocked.", "Allow it for this page in the browser's address bar, then press again."],
  NotFoundError: ["No microphone was found.", "Plug one in, or send a file instead."],
  NotReadableError: ["The microphone is busy.", "Another program holds it; close that program and press again."],
};

export function fromMicrophone(error) {
  const known = MICROPHONE[error.name];
  return new Problem(...(known ?? ["The microphone cannot be used.", `The browser says: ${error.name}.`]));
}

const TITLES = {
  401: "An API key is needed.",
  403: "This key may not do that.",
  413: "That recording is too large.",
  429: "The service is busy.",
  503: "The service is stopping or out of reach of its model.",
};

export function fromAnswer(status, body) {
  const error = readable(body)?.error ?? {};
  const title = TITLES[status] ?? (status >= 500 ? "The service failed." : "The service refused the recording.");
  return new Problem(title, error.message ?? `It answered ${status} without a reason.`, status);
}

export function unreachable() {
  return new Problem("The service cannot be reached.", "It may have been stopped. Start it again with `auricle up`, then try once more.");
}

// A browser hides why a WebSocket was refused: ask the plain routes what they think.
export async function fromRefusedSocket(headers) {
  try {
    const answer = await fetch("v1/models", { headers });
    if (!answer.ok) return fromAnswer(answer.status, await answer.text());
    return new Problem("The live stream was refused.", "All live streams may be taken. Wait a moment and press again, or send a file.", 429);
  } catch {
    return unreachable();
  }
}

export function fromClosedSocket(event) {
  if (event.code === 1012) return new Problem("The service is restarting.", "What you said until now is complete. Press again in a moment.");
  const reason = event.reason ? `The service says: ${event.reason}.` : `The connection closed with code ${event.code}.`;
  return new Problem("The live stream ended early.", `${reason} What was final stays below.`);
}

function readable(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}
