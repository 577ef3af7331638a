// Drives a memcache client of node's for test_clients.py: a request a line on standard input, a reply a line on output.
// Both are JSON; bytes are {"base64": ...}.
'use strict'
const [, , modules, kind, server] = process.argv
const path = require('path')

let client, call
if (kind === 'memcached') {
  const Memcached = require(path.join(modules, 'memcached'))
  client = new Memcached(server, { poolSize: 1, timeout: 60000, retries: 0 })
  call = {
    set: (key, value, done) => client.set(key, value, 0, done),
    get: (key, done) => client.get(key, done),
    get_many: (keys, done) => client.getMulti(keys, done),
    delete: (key, done) => client.del(key, done),
    touch: (key, done) => client.touch(key, 0, done),
    flush_all: (done) => client.flush((error, results) => done(error, results)),
    stats: (done) => client.stats((error, results) => done(error, results && results[0]))
  }
} else {
  const { MemcacheClient } = require(path.join(modules, 'memcache-client'))
  client = new MemcacheClient({ server, maxConnections: 1, cmdTimeout: 60000 })
  const value = (done) => (error, result) => done(error, result && result.value)
  call = {
    set: (key, value, done) => client.set(key, value, done),
    get: (key, done) => client.get(key, value(done)),
    get_many: (keys, done) => client.get(keys, (error, results) => {
      const values = {}
      for (const key in results) values[key] = results[key].value
      done(error, values)
    }),
    delete: (key, done) => client.delete(key, (error, results) => done(error, results && results[0])),
    touch: (key, done) => client.touch(key, 0, (error, results) => done(error, results && results[0])),
    flush_all: (done) => client.cmd('flush_all', {}, (error, results) => done(error, results && results[0])),
    stats: (done) => client.cmd('stats', {}, (error, results) => {
      const figures = {}
      for (const [name, figure] of (results && results.STAT) || []) figures[name] = figure
      done(error, figures)
    })
  }
}

function decode (value) {
  return value && value.base64 !== undefined ? Buffer.from(value.base64, 'base64') : value
}

function encode (value) {
  if (Buffer.isBuffer(value)) return { base64: value.toString('base64') }
  return value === undefined ? null : value
}

require('readline').createInterface({ input: process.stdin }).on('line', (line) => {
  const [name, ...words] = JSON.parse(line)
  call[name](...words.map(decode), (error, result) => {
    const reply = error ? { error: String(error.message || error) } : { result: encode(result) }
    process.stdout.write(JSON.stringify(reply) + '\n')
  })
}).on('close', () => process.exit(0))
