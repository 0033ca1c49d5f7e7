// kafkajs behind the runner's commands (see ../README.md). It has only group consumers: `consume` by partition and offset is
// not possible with it, what it produces is read back by the other clients.
'use strict'

const modules = process.env.PELTON_NODE_MODULES
const load = (name) => require(`${modules}/${name}`)
const { Kafka, CompressionTypes, CompressionCodecs, logLevel, Partitioners } = load('kafkajs')
const zstd = load('@bokuweb/zstd-wasm')
const lz4 = load('lz4js')
const snappy = load('snappyjs')

const TYPES = { none: 0, gzip: CompressionTypes.GZIP, snappy: CompressionTypes.Snappy, lz4: CompressionTypes.LZ4, zstd: CompressionTypes.ZSTD }
// lz4js flags its blocks as dependent, which Kafka refuses. Ours are one block (below 4 MiB), so independent: say so.
const lz4Frame = (buffer) => {
  const frame = lz4.compress(buffer)
  frame[4] |= 0x20
  frame[6] = (load('lz4js/xxh32.js').hash(0, frame, 4, 2) >> 8) & 0xff
  return frame
}
const codec = (compress) => () => ({ compress: async (encoder) => Buffer.from(compress(encoder.buffer)), decompress: async () => { throw new Error('not used') } })
CompressionCodecs[CompressionTypes.Snappy] = codec(snappy.compress)
CompressionCodecs[CompressionTypes.LZ4] = codec(lz4Frame)
CompressionCodecs[CompressionTypes.ZSTD] = codec(zstd.compress)

const bytes = (text) => (text === null ? null : Buffer.from(text, 'base64'))
const kafka = new Kafka({ brokers: [process.argv[2]], clientId: 'kafkajs', logLevel: logLevel.NOTHING, requestTimeout: 10000, retry: { initialRetryTime: 100, maxRetryTime: 1000, retries: 20 } })
const producers = new Map()
let admin = null

async function producer (idempotent) {
  if (!producers.has(idempotent)) {
    const p = kafka.producer({ idempotent, maxInFlightRequests: idempotent ? 1 : null, metadataMaxAge: 1000, createPartitioner: Partitioners.DefaultPartitioner })
    await p.connect()
    producers.set(idempotent, p)
  }
  return producers.get(idempotent)
}

async function theAdmin () {
  if (admin === null) {
    admin = kafka.admin()
    await admin.connect()
  }
  return admin
}

// kafkajs sends every call as one batch per partition: a call that would be larger than `batch_bytes` is cut in several.
function chunks (c) {
  const limit = c.batch_bytes || 65536
  const out = [[]]
  let size = 0
  c.records.forEach((r, i) => {
    const one = (r.v || '').length * 3 / 4 + 100
    if (size + one > limit && out[out.length - 1].length > 0) {
      out.push([])
      size = 0
    }
    out[out.length - 1].push(i)
    size += one
  })
  return out
}

async function produce (c) {
  const p = await producer(Boolean(c.idempotent))
  const offsets = new Array(c.records.length).fill(null)
  for (const indexes of chunks(c)) {
    const messages = indexes.map((i) => {
      const r = c.records[i]
      const headers = {}
      for (const [name, value] of r.h) headers[name] = bytes(value)
      return { partition: r.p, timestamp: r.ts === null ? undefined : String(r.ts), key: bytes(r.k), value: bytes(r.v), headers }
    })
    const got = await p.send({ topic: c.topic, acks: c.acks === undefined ? -1 : c.acks, compression: TYPES[c.codec || 'none'], timeout: 10000, messages })
    // A partition that its metadata does not know yet is dropped by kafkajs without a word: make it an error.
    const missing = c.acks === 0 ? [] : indexes.filter((i) => !got.some((g) => g.partition === c.records[i].p))
    if (missing.length > 0) throw new Error(`kafkajs sent nothing to partition ${c.records[missing[0]].p}`)
    for (const part of got) {
      const mine = indexes.filter((i) => c.records[i].p === part.partition)
      mine.forEach((i, n) => { offsets[i] = part.baseOffset === undefined ? -1 : Number(part.baseOffset) + n })
    }
  }
  return { offsets: c.acks === 0 ? offsets.map(() => -1) : offsets }
}

// A group consumer hands its records to a callback: they wait here until the runner takes them.
const members = new Map()
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms))

async function join (c) {
  if ((c.protocol || 'classic') !== 'classic') return { skip: 'kafkajs has the classic protocol only' }
  const consumer = kafka.consumer({ groupId: c.group, sessionTimeout: c.session_ms || 6000, heartbeatInterval: 500, maxWaitTimeInMs: 100, metadataMaxAge: 1000 })
  const member = { consumer, records: [], next: new Map(), assigned: [] }
  consumer.on(consumer.events.GROUP_JOIN, (e) => {
    member.assigned = Object.entries(e.payload.memberAssignment).flatMap(([t, ps]) => ps.map((p) => [t, p]))
  })
  await consumer.connect()
  await consumer.subscribe({ topics: c.topics, fromBeginning: true })
  await consumer.run({
    autoCommit: false,
    eachMessage: async ({ topic, partition, message }) => { member.records.push([topic, partition, Number(message.offset)]) }
  })
  members.set(c.member, member)
  return {}
}

async function take (c) {
  const member = members.get(c.member)
  const deadline = Date.now() + c.timeout_ms
  while (Date.now() < deadline && (c.count === 0 || member.records.length < c.count)) await pause(50)
  const records = member.records.splice(0, c.count === 0 ? member.records.length : c.count)
  for (const [t, p, o] of records) member.next.set(`${t} ${p}`, o + 1)
  return { records, assigned: member.assigned }
}

async function commit (c) {
  const { consumer, next } = members.get(c.member)
  const offsets = [...next].map(([key, offset]) => [key.split(' ')[0], Number(key.split(' ')[1]), offset])
  await consumer.commitOffsets(offsets.map(([topic, partition, offset]) => ({ topic, partition, offset: String(offset) })))
  return { offsets }
}

async function leave (c) {
  await members.get(c.member).consumer.disconnect()
  members.delete(c.member)
  return {}
}

const commands = {
  join,
  take,
  commit,
  leave,
  hello: async () => ({ client: 'kafkajs', version: require(`${modules}/kafkajs/package.json`).version, caps: { null_headers: false } }),
  produce,
  consume: async () => ({ skip: 'kafkajs has only group consumers' }),
  offsets: async (c) => {
    const got = (await (await theAdmin()).fetchTopicOffsets(c.topic)).find((o) => o.partition === c.p)
    return { earliest: Number(got.low), latest: Number(got.high) }
  },
  time: async (c) => {
    // kafkajs answers the end of the log where there is no such record
    const a = await theAdmin()
    const got = (await a.fetchTopicOffsetsByTimestamp(c.topic, c.ts)).find((o) => o.partition === c.p)
    const end = (await a.fetchTopicOffsets(c.topic)).find((o) => o.partition === c.p)
    return { offset: Number(got.offset) === Number(end.high) ? -1 : Number(got.offset) }
  },
  create: async (c) => {
    await (await theAdmin()).createTopics({ waitForLeaders: true, topics: [{ topic: c.topic, numPartitions: c.partitions, configEntries: Object.entries(c.configs).map(([name, value]) => ({ name, value })) }] })
    return {}
  },
  delete: async (c) => { await (await theAdmin()).deleteTopics({ topics: [c.topic] }); return {} },
  configs: async (c) => {
    const got = await (await theAdmin()).describeConfigs({ includeSynonyms: true, resources: [{ type: 2, name: c.topic }] })
    return { configs: Object.fromEntries(got.resources[0].configEntries.map((e) => [e.configName, e.configValue])) }
  },
  metadata: async (c) => {
    const a = await theAdmin()
    const cluster = await a.describeCluster()
    const got = await a.fetchTopicMetadata({ topics: [c.topic] })
    return { brokers: cluster.brokers.map((b) => [b.nodeId, b.host, b.port]), partitions: got.topics[0].partitions.length }
  }
}

async function answer (line) {
  const c = JSON.parse(line)
  try {
    const got = await commands[c.op](c)
    return got.skip ? got : { ok: true, ...got }
  } catch (e) {
    const inner = e.errors ? e.errors[0] : e.cause || e
    return { ok: false, code: inner.code ?? e.code ?? -1, error: String(e.stack).slice(0, 600) }
  }
}

async function main () {
  await zstd.init()
  let chain = Promise.resolve()
  const lines = require('readline').createInterface({ input: process.stdin, terminal: false })
  lines.on('line', (line) => { chain = chain.then(async () => console.log(JSON.stringify(await answer(line)))) })
  lines.on('close', () => { chain.then(() => process.exit(0)) })
}

main()
