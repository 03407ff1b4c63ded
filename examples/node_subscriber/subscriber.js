// Prints the events of a Tortie cluster as they happen: one JSON object a line.
//
//   npm install
//   node subscriber.js nats://127.0.0.1:4222 'tortie.v1.event.pod.>'
//
// docs/events.md lists every event, its subject and its fields. Node.js 18 or newer.

import { decode } from "@msgpack/msgpack";
import { connect } from "@nats-io/transport-node";

const [server = "nats://127.0.0.1:4222", subject = "tortie.v1.event.>"] = process.argv.slice(2);

let bus;
try {
  bus = await connect({
    servers: server,
    name: "node-subscriber",
    maxReconnectAttempts: -1,
    reconnectTimeWait: 500,
  });
} catch (error) {
  console.error(`no bus at ${server}: ${error.message}`);
  process.exit(1);
}

const events = bus.subscribe(subject);
await bus.flush(); // the server has it: from here on nothing is missed
console.error(`listening to ${subject}`);

for (const signal of ["SIGINT", "SIGTERM"]) {
  process.once(signal, () => bus.drain());
}

(async () => {
  for await (const status of bus.status()) {
    if (status.type === "disconnect" || status.type === "reconnect") {
      console.error(`bus: ${status.type}`);
    }
  }
})();

for await (const message of events) {
  let event;
  try {
    event = decode(message.data);
    if (event.type !== "event/1") throw new Error(`it is a ${event.type}`);
  } catch (error) {
    console.error(`${message.subject}: not understood: ${error.message}`);
    continue;
  }
  // A field that has its default is not in the message.
  const { time, domain, what, severity = "info", node = null, object = "", message: text, advice = "", detail = {} } =
    event;
  console.log(
    JSON.stringify({
      time: new Date(time * 1000).toISOString(),
      event: `${domain}.${what}`,
      severity,
      node,
      object,
      text,
      advice,
      detail,
    }),
  );
}
