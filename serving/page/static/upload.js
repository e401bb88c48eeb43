// A file to a transcript. XMLHttpRequest, because `fetch` tells nothing about an upload's progress.
import { fromAnswer, unreachable } from "./problems.js";

// Gives {answer, cancel}; `answer` is the verbose JSON, or null after cancel().
export function transcribe(file, { model, credentials, progress }) {
  const request = new XMLHttpRequest();
  const answer = new Promise((done, fail) => {
    request.upload.onprogress = (event) => event.lengthComputable && progress(event.loaded / event.total);
    request.upload.onload = () => progress(1);
    request.onerror = () => fail(unreachable());
    request.onabort = () => done(null);
    request.onload = () =>
      request.status === 200 ? done(JSON.parse(request.responseText)) : fail(fromAnswer(request.status, request.responseText));
  });
  request.open("POST", "v1/audio/transcriptions");
  for (const [name, value] of Object.entries(credentials.headers())) request.setRequestHeader(name, value);
  const form = new FormData();
  form.append("model", model);
  form.append("response_format", "verbose_json");
  form.append("timestamp_granularities[]", "word");
  form.append("timestamp_granularities[]", "segment");
  form.append("file", file, file.name || "recording");
  request.send(form);
  return { answer, cancel: () => request.abort() };
}
