// What runs in vitest's workers, versions 1 to 5: it chooses the tests of the batch among those that a file really
// has, and records each test when it starts and when it ends, so that a worker that dies leaves all that it knew.
// The reporter makes the project's runner an instance of this one.
import { openSync, writeSync } from 'node:fs'
import { relative } from 'node:path'
import { stripVTControlCharacters } from 'node:util'

// Tests may replace the clock.
const now = Date.now.bind(Date)

// Bytes of a text that are kept.
const KEPT = 64 * 1024

// Frames of a stack that say nothing about the tests.
const PACKAGES = '@vitest|vitest|vite-node|vite|esbuild|rollup|rolldown|tinypool|tinyspy|chai'
const MACHINERY = new RegExp(
  `vitest_runner\\.mjs|\\(?node:|\\(<anonymous>\\)|\\(index \\d+\\)|node_modules/(${PACKAGES})/`,
)

export const isPlanned = (task) => task.mode === 'run' || task.mode === 'queued'

export function outcomeOf({ mode, result }) {
  const outcome = { pass: 'passed', fail: 'failed', skip: 'skipped' }[result?.state]
  return outcome ?? (mode === 'skip' || mode === 'todo' ? 'skipped' : 'error')
}

export class Record {
  constructor({ record, begin }) {
    this.begin = begin
    this.file = openSync(record, 'a')
  }

  // Each line is one write, so that lines of several workers do not mix.
  write(line) {
    writeSync(this.file, JSON.stringify(line) + '\n')
  }

  at() {
    return (now() - this.begin) / 1000
  }
}

// A text of which the middle is left out if it is long.
export class Text {
  head = ''
  tail = ''
  left = 0

  add(text) {
    const half = KEPT / 2
    const begin = cut(text, 0, half - Buffer.byteLength(this.head))
    if (this.tail === '' && this.left === 0) {
      this.head += begin
      text = text.slice(begin.length)
    }
    this.tail += text
    const size = Buffer.byteLength(this.tail)
    // Cutting each time would copy the tail for each word.
    if (size > 2 * half) this.shorten(size - half)
    return this
  }

  shorten(bytes) {
    const gone = cut(this.tail, 0, bytes)
    this.tail = this.tail.slice(gone.length)
    this.left += Buffer.byteLength(gone)
  }

  toString() {
    const size = Buffer.byteLength(this.tail)
    if (size > KEPT / 2) this.shorten(size - KEPT / 2)
    return this.left ? `${this.head}\n[... ${this.left} bytes left out ...]\n${this.tail}` : this.head + this.tail
  }
}

// The beginning of `text` that has at most `bytes` bytes.
function cut(text, from, bytes) {
  if (bytes <= 0) return ''
  if (Buffer.byteLength(text) <= bytes) return text
  const part = Buffer.from(text).subarray(from, bytes).toString()
  return text.startsWith(part) ? part : part.replace(/\uFFFD+$/, '')
}

// The native ids of all tests below a file, by task. A test is known by its project, whether its types are checked
// instead of running it, its file, its titles, and which of the tests with the same titles it is.
export function nativeIds(file, root) {
  const seen = new Map()
  const ids = new Map()
  const place = JSON.parse(keyOf(file, root))
  const walk = (tasks, titles) => {
    for (const task of tasks) {
      const path = [...titles, task.name]
      if (task.type === 'suite') {
        walk(task.tasks, path)
        continue
      }
      const key = JSON.stringify(path)
      const count = (seen.get(key) ?? 0) + 1
      seen.set(key, count)
      ids.set(task, JSON.stringify([...place, path, count]))
    }
  }
  walk(file.tasks, [])
  return ids
}

export function isTypeTest(file) {
  return file.pool === 'typescript' || file.meta?.typecheck === true
}

// What the native ids of all tests of a file begin with.
export function keyOf(file, root) {
  return JSON.stringify([file.projectName ?? '', isTypeTest(file), relative(root, file.filepath)])
}

export function fileKey(native) {
  return JSON.stringify(JSON.parse(native).slice(0, 3))
}

// How a suite or a file is called in messages.
export function nameOf(suite, root) {
  const titles = []
  for (let each = suite; each && !each.filepath; each = each.suite ?? each.file) titles.unshift(each.name)
  // vitest 1 has a suite without a name around them all.
  return [relative(root, (suite.file ?? suite).filepath), ...titles.filter(Boolean)].join(' > ')
}

// What to record of an error: its kind, a line, and a text as vitest prints it.
export function describe(error) {
  const message = stripVTControlCharacters(String(error?.message ?? error))
  return { kind: error?.name, message: message.split('\n', 1)[0], text: print(error, 0) }
}

function print(error, depth) {
  const plain = (text) => stripVTControlCharacters(String(text ?? ''))
  const message = plain(error?.message ?? error)
  let text = depth && error?.name && error.name !== 'Error' ? `${error.name}: ${message}` : message
  if (error?.diff) text += `\n\n${plain(error.diff).trim()}`
  const frames = plain(error?.stack ?? error?.stackStr).split('\n').filter((line) => /^\s*at /.test(line))
  const own = frames.filter((line) => !MACHINERY.test(line))
  // Where a file cannot be parsed.
  if (error?.id && error.loc) text += `\n\n    at ${error.id}:${error.loc.line}:${error.loc.column}`
  if (error?.frame) text += `\n\n${plain(error.frame)}`
  if (own.length) text += `\n\n${own.join('\n')}`
  if (error?.cause && depth < 5) text += `\n\nCaused by: ${print(error.cause, depth + 1)}`
  return String(new Text().add(text))
}

// A constructor of `Base` that records. `settings` has `root`, from which native ids count, `directory`, from which
// listed files count, `wanted` (the native ids of the batch) and what `Record` needs.
export function recording(Base, settings) {
  return function Runner(config) {
    const runner = new Base(config)
    new Observer(settings).observe(runner)
    return runner
  }
}

class Observer {
  constructor(settings) {
    this.root = settings.root
    this.directory = settings.directory
    this.wanted = new Set(settings.wanted)
    this.record = new Record(settings)
    this.ids = new Map()
    // Tests that run, with their output and the number of errors that are recorded.
    this.running = new Map()
    this.begun = new Set()
  }

  observe(runner) {
    const wrap = (name, around) => {
      const own = runner[name]
      runner[name] = (...given) => around(async () => own?.apply(runner, given), ...given)
    }
    wrap('onBeforeCollect', (own, paths) => {
      for (const path of paths) this.record.write({ event: 'loading', file: relative(this.directory, path) })
      return own()
    })
    wrap('onCollected', async (own, files) => {
      for (const file of files) this.choose(file)
      await own()
    })
    wrap('onBeforeRunTask', async (own, test) => {
      await own()
      this.settle()
      if (isPlanned(test)) this.start(test)
    })
    wrap('onBeforeTryTask', (own, test, attempt) => {
      if (attempt?.retry > 0) this.fail(test, true)
      return own()
    })
    wrap('onAfterRunTask', (own, test) => {
      this.end(test)
      return own()
    })
    wrap('onAfterRunSuite', (own, suite) => {
      this.settle()
      const errors = suite.result?.errors?.length ?? 0
      // Not awaited, so that this line is in no stack of an error of vitest's own.
      return own().then(() => {
        suite.result?.errors?.forEach((error, index) => this.tell(index < errors ? 'hook' : 'snapshot', suite, error))
      })
    })
  }

  // Skips what the batch does not ask for, as vitest skips what `-t` does not match.
  choose(file) {
    const ids = nativeIds(file, this.root)
    if (file.result?.state === 'fail') {
      for (const error of file.result.errors ?? []) this.tell('collection', file, error)
      return
    }
    const walk = (suite) => {
      for (const task of suite.tasks) {
        if (task.type === 'suite') walk(task)
        else if (!this.wanted.has(ids.get(task))) task.mode = 'skip'
        else {
          this.ids.set(task, ids.get(task))
          if (!isPlanned(task)) this.record.write({ event: 'end', id: ids.get(task), outcome: 'skipped' })
        }
      }
      if (isPlanned(suite) && suite.tasks.length && !suite.tasks.some(isPlanned)) suite.mode = 'skip'
    }
    walk(file)
  }

  start(test) {
    const id = this.ids.get(test)
    if (!id) return
    this.begun.add(test)
    this.running.set(test, { told: 0, stdout: new Text(), stderr: new Text() })
    this.listen()
    this.record.write({ event: 'start', id, at: this.record.at() })
  }

  // Records the errors that came since the last call.
  fail(test, retried) {
    const running = this.running.get(test)
    const errors = test.result?.errors ?? []
    // A test that should fail does so.
    if (!running || retried && test.fails) return
    for (const error of errors.slice(running.told)) {
      const line = { event: 'failure', id: this.ids.get(test), outcome: 'failed', ...describe(error) }
      this.record.write(retried ? { ...line, retried } : line)
    }
    running.told = errors.length
  }

  end(test) {
    const running = this.running.get(test)
    if (!running) return
    const { duration, note } = test.result ?? {}
    const outcome = outcomeOf(test)
    const times = { at: this.record.at(), seconds: (duration ?? 0) / 1000 }
    const line = { event: 'end', id: this.ids.get(test), ...times, outcome }
    if (outcome === 'failed') {
      this.fail(test, false)
      for (const stream of ['stdout', 'stderr']) {
        const text = String(running[stream])
        if (text) line[stream] = stripVTControlCharacters(text)
      }
    }
    if (outcome === 'skipped' && note) line.message = note
    this.running.delete(test)
    this.record.write(line)
  }

  // A test that skips itself ends without a word.
  settle() {
    for (const test of this.running.keys()) if (test.result?.state === 'skip') this.end(test)
  }

  // Records an error outside tests. What is below `suite` and has not begun cannot pass any more.
  tell(what, suite, error) {
    const name = nameOf(suite, this.root)
    const line = { event: 'error', what, name, ...describe(error) }
    if (what === 'collection') line.files = [relative(this.directory, suite.filepath)]
    if (what === 'hook') {
      const walk = (tasks) => tasks.flatMap((task) => task.type === 'suite' ? walk(task.tasks) : [task])
      const lost = walk(suite.tasks).filter((task) => this.ids.has(task) && !this.begun.has(task))
      line.tests = lost.map((task) => this.ids.get(task))
    }
    this.record.write(line)
  }

  // vitest's console tells each text to the streams that it was made with.
  listen() {
    for (const [name, own] of [['_stdout', process.stdout], ['_stderr', process.stderr]]) {
      const stream = globalThis.console?.[name]
      if (typeof stream?.write !== 'function' || stream === own || heard.has(stream)) continue
      heard.add(stream)
      const write = stream.write
      const observer = this
      stream.write = function (text, ...rest) {
        const running = [...listening.running.values()].at(-1)
        running?.[name.slice(1)].add(String(text))
        return write.call(this, text, ...rest)
      }
    }
    listening = this
  }
}

// Files share a console where they share a worker.
const heard = new WeakSet()
let listening
