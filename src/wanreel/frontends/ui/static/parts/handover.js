// A request on its way to Create: hand over(studio, request) here, take() there. A request is what POST /v1/videos takes.
let waiting = null;

export function handOver(studio, request) {
  waiting = request;
  studio.go("create", { restored: String(Date.now()) });
}

export function take() {
  const request = waiting;
  waiting = null;
  return request;
}
