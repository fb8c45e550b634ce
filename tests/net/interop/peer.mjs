// The other implementation as one process: a JSON line in, a JSON line out, for tests/net/interop/peer.py.
//   {"items": [[seconds, id]…], "frame": bytes}  a new session over a set         -> {}
//   {"open": true}                               its first message, as initiator  -> {"says": hex}
//   {"hears": hex}                               its answer to a message          -> {"says": hex | null, "have": […], "need": […]}

import * as crypto from "node:crypto"
import { createInterface } from "node:readline"

// The library asks a global for node's own createHash, which is no longer what the global of that name is.
Object.defineProperty(globalThis, "crypto", { value: crypto })
const { Negentropy, NegentropyStorageVector } = await import("@welshman/net/dist/net/src/negentropy.js")

let session

async function answer(asked) {
  if (asked.items) {
    const items = new NegentropyStorageVector()
    for (const [seconds, id] of asked.items) items.insert(seconds, id)
    items.seal()
    session = new Negentropy(items, asked.frame)
    return {}
  }
  if (asked.open) return { says: await session.initiate() }
  const [says, have, need] = await session.reconcile(asked.hears)
  return { says, have, need }
}

for await (const line of createInterface({ input: process.stdin })) {
  const answered = await answer(JSON.parse(line)).catch((error) => ({ error: String(error) }))
  process.stdout.write(JSON.stringify(answered) + "\n")
}
