// A reporter for vitest 1 to 5. A line in front of this text defines `settings`:
// `list`: a file for the tests that were collected; `pattern`: the `-t` that selects among them; `collection`: a text
// to repeat there;
// `record`: a file to which a batch is recorded; `wanted`: the native ids of its tests.
import { readFileSync, writeFileSync } from 'node:fs'
import { relative, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { stripVTControlCharacters } from 'node:util'
import {
  Record, Text, describe, fileKey, isPlanned, isTypeTest, keyOf, nameOf, nativeIds, outcomeOf,
} from './vitest_runner.mjs'

// How vitest joins titles before it applies `-t`.
function joined(titles, major) {
  return (major < 2 ? ' ' : '') + titles.join(major < 5 ? ' ' : ' > ')
}

const projects = (vitest) => vitest.projects ?? [vitest]

const isSuite = (task) => task.type === 'suite'

class Lister {
  onInit({ vitest, version }) {
    this.vitest = vitest
    this.major = parseInt(version, 10)
    this.root = vitest.config.root
    for (const { config } of projects(vitest)) config.includeTaskLocation = true
    this.write(false, [], [])
    const { owner, name } = finder(vitest)
    const find = owner[name]
    owner[name] = async (...given) => {
      this.found = await find.apply(owner, given)
      // vitest may end at once then.
      if (!this.found.length) this.write(true, [], [])
      return this.found
    }
  }

  write(whole, files, errors) {
    writeFileSync(settings.list, JSON.stringify({ whole, collection: settings.collection, files, errors }))
  }

  async finish(errors) {
    const pattern = settings.pattern ? new RegExp(settings.pattern) : undefined
    const labels = await this.labels()
    const all = this.vitest.state.getFiles().map((file) => {
      const tests = [...nativeIds(file, this.root)].map(([task, native]) => {
        const titles = JSON.parse(native)[3]
        const isChosen = !pattern || pattern.test(joined(titles, this.major))
        return { native, titles, line: task.location?.line, isChosen }
      })
      const key = keyOf(file, this.root)
      const name = (labels.get(key) ?? '') + relative(this.root, file.filepath)
      return { key, name, path: relative(process.cwd(), file.filepath), error: whyNothing(file), tests }
    })
    const files = all.sort((one, other) => one.path === other.path ? one.key < other.key ? -1 : 1 : one.path < other.path ? -1 : 1)
    // What runs will say it again.
    const again = new Set(files.filter(({ error, tests }) => !error && tests.length).map(({ name }) => name))
    const isTyped = (error) => ['Unhandled Source Error', 'Typecheck Error'].includes(error?.type)
    const told = errors.filter((error) => !isTyped(error) || !files.some(({ key }) => JSON.parse(key)[1]))
    const left = told.map((error) => unhandled(error, this.root)).filter(({ name }) => !again.has(name))
    const keys = new Set(files.map(({ key }) => key))
    const isThere = (specification) => specificationKeys(specification, this.root).some((key) => keys.has(key))
    const isWhole = left.length > 0 || this.found.every(isThere)
    this.write(isWhole, files, left.map(({ name, text }) => ({ name, text })))
  }

  // What to put before the names of files that run more than once, by file keys.
  async labels() {
    const { vitest } = this
    const find = vitest.globTestSpecifications ?? vitest.globTestFiles
    const keys = (await find.call(vitest)).map((specification) => specificationKeys(specification, this.root)[0])
    const twins = new Map()
    for (const key of keys) {
      const [project, types, file] = JSON.parse(key)
      twins.set(file, [...twins.get(file) ?? [], { key, project, types }])
    }
    const labels = new Map()
    for (const each of [...twins.values()].filter((each) => each.length > 1)) {
      for (const { key, project, types } of each) {
        const isOfSeveral = each.some((other) => other.project !== project)
        const isChecked = types && each.some((other) => other.project === project && !other.types)
        labels.set(key, (isOfSeveral && project ? `|${project}| ` : '') + (isChecked ? 'TS ' : ''))
      }
    }
    return labels
  }
}

// Why none of the tests of a file can run.
function whyNothing(file) {
  const all = (task) => [...task.result?.errors ?? [], ...(task.tasks ?? []).flatMap(all)]
  const tests = (tasks) => tasks.flatMap((task) => isSuite(task) ? tests(task.tasks) : [task])
  if (!file.result?.errors?.length && tests(file.tasks).length) return undefined
  const errors = all(file).map((error) => describe(error).text)
  return errors.join('\n') || (file.result?.state === 'fail' ? 'it cannot be loaded' : undefined)
}

// An error that belongs to no test.
function unhandled(error, root) {
  const { message, text } = describe(error)
  const type = error?.type ?? 'Unhandled Error'
  let whole = `${type}: ${text}`
  const file = error?.VITEST_TEST_PATH && relative(root, resolve(root, error.VITEST_TEST_PATH))
  if (file) whole += `\n\nIt comes from ${file}, maybe not from a test in it.`
  if (error?.VITEST_TEST_NAME) whole += `\nThe last test that began before it: ${error.VITEST_TEST_NAME}`
  return { what: 'unhandled', name: file || type, message: `${type}: ${message}`, text: whole }
}

class Recorder {
  onInit({ vitest, home, version }) {
    this.vitest = vitest
    this.root = vitest.config.root
    this.place = { root: this.root, directory: process.cwd() }
    this.begin = Date.now()
    this.record = new Record({ record: settings.record, begin: this.begin })
    this.record.write({ event: 'begin', version: 1, tool: `vitest ${version}` })
    this.caught = []
    this.said = new Text()
    this.narrow()
    this.install(home, parseInt(version, 10))
    this.listen()
  }

  // Of the files that vitest finds, only those of the batch run.
  narrow() {
    const wanted = new Set(settings.wanted.map(fileKey))
    const { owner, name } = finder(this.vitest)
    const find = owner[name]
    owner[name] = async (...given) => {
      const all = await find.apply(owner, given)
      const keys = (specification) => specificationKeys(specification, this.root)
      const own = all.filter((specification) => keys(specification).some((key) => wanted.has(key)))
      this.found = new Set(own.flatMap(keys))
      return own
    }
  }

  // Makes the runner of each project one that records.
  install(home, major) {
    const place = (name) => fileURLToPath(new URL(name, import.meta.url))
    const shared = { ...this.place, wanted: settings.wanted, record: settings.record, begin: this.begin }
    writeFileSync(place('wanted.mjs'), `export default ${JSON.stringify(shared)}\n`)
    const [file, name] = major < 4 ? ['dist/runners.js', 'VitestTestRunner'] : ['dist/index.js', 'TestRunner']
    const quoted = JSON.stringify
    projects(this.vitest).forEach(({ config }, index) => {
      if (config.browser?.enabled) return
      const base = config.runner ? `import Base from ${quoted(config.runner)}` : `import { ${name} as Base } from ${quoted(home + file)}`
      const text = `${base}\nimport { recording } from ${quoted(place('vitest_runner.mjs'))}\n` +
        `import settings from ${quoted(place('wanted.mjs'))}\nexport default recording(Base, settings)\n`
      // vitest transforms a `.js` file, as a runner in TypeScript needs it.
      config.runner = place(`runner-${index}.js`)
      writeFileSync(config.runner, text)
    })
  }

  listen() {
    const { logger } = this.vitest
    const error = logger.error
    logger.error = (...given) => {
      this.said.add(given.map(String).join(' ') + '\n')
      return error.apply(logger, given)
    }
    const keep = (error) => this.caught.push(error)
    process.on('uncaughtExceptionMonitor', keep)
    // Where nobody listens, a rejection is an exception, and a listener would change that.
    if (process.listenerCount('unhandledRejection')) process.prependListener('unhandledRejection', keep)
    // vitest's own listener exits at once.
    process.prependListener('exit', (code) => this.leave(code))
  }

  finish(errors) {
    if (this.finished) return
    this.finished = true
    const known = this.known()
    const missing = new Set(settings.wanted)
    for (const file of this.vitest.state.getFiles()) {
      const broken = file.result?.errors ?? []
      const isForeign = isTypeTest(file) || !known.loaded.has(relative(this.place.directory, file.filepath))
      if (isForeign) this.foreign(file)
      else if (!known.told.has(nameOf(file, this.root))) for (const error of broken) this.tell('collection', file, error)
      // What a file has is known only if it was loaded.
      const key = keyOf(file, this.root)
      const has = new Set(nativeIds(file, this.root).values())
      if (broken.length || !has.size) for (const id of missing) if (fileKey(id) === key) missing.delete(id)
      for (const id of has) missing.delete(id)
    }
    for (const error of this.lost(errors, known)) this.record.write({ event: 'error', ...unhandled(error, this.root) })
    const collected = new Set(this.vitest.state.getFiles().map((file) => keyOf(file, this.root)))
    for (const id of missing) {
      const isNowhere = this.found && !this.found.has(fileKey(id))
      if (isNowhere || collected.has(fileKey(id))) this.record.write({ event: 'missing', id })
    }
  }

  // A worker that died in a test left its error to vitest itself. It belongs to the tests that did not end; what
  // remains belongs to none.
  lost(errors, known) {
    const alive = ['Uncaught Exception', 'Unhandled Rejection', 'Unhandled Source Error', 'Typecheck Error']
    const deaths = errors.filter((error) => !alive.includes(error?.type))
    const open = [...known.begun].filter((id) => !known.ended.has(id))
    if (deaths.length && open.length) {
      const texts = deaths.map(describe)
      const message = `its worker died: ${texts[0].message}`
      const text = texts.map((each) => each.text).join('\n')
      for (const id of open) this.record.write({ event: 'end', id, at: this.record.at(), outcome: 'error', message, text })
    }
    const own = open.length ? errors.filter((error) => !deaths.includes(error)) : errors
    if (this.vitest.config.dangerouslyIgnoreUnhandledErrors) return []
    const seen = new Set()
    return own.filter((error) => {
      const { text } = unhandled(error, this.root)
      return !seen.has(text) && seen.add(text)
    })
  }

  // Records tests that no worker has recorded: those of types, and those in browsers.
  foreign(file) {
    const ids = nativeIds(file, this.root)
    const wanted = new Set(settings.wanted)
    const record = (test) => {
      const id = ids.get(test)
      const { state, duration, errors } = test.result ?? {}
      const isOver = ['pass', 'fail', 'skip'].includes(state) || !isPlanned(test)
      if (!wanted.has(id) || !isOver) return
      const outcome = outcomeOf(test)
      const retried = outcome === 'passed' ? { retried: true } : {}
      for (const error of errors ?? []) {
        this.record.write({ event: 'failure', id, outcome: 'failed', ...describe(error), ...retried })
      }
      const line = { event: 'end', id, at: this.record.at(), seconds: (duration ?? 0) / 1000, outcome }
      for (const stream of outcome === 'failed' ? ['stdout', 'stderr'] : []) {
        const told = (test.logs ?? []).filter((log) => log.type === stream).map((log) => log.content)
        if (told.length) line[stream] = String(new Text().add(told.join('')))
      }
      this.record.write(line)
    }
    const walk = (suite) => {
      for (const error of suite.result?.errors ?? []) this.tell(suite === file ? 'collection' : 'hook', suite, error)
      for (const task of suite.tasks) isSuite(task) ? walk(task) : record(task)
    }
    walk(file)
  }

  tell(what, suite, error) {
    const line = { event: 'error', what, name: nameOf(suite, this.root), ...describe(error) }
    if (what === 'collection') line.files = [relative(this.place.directory, suite.filepath)]
    this.record.write(line)
  }

  // What the record says so far.
  known() {
    const known = { begun: new Set(), ended: new Set(), loaded: new Set(), told: new Set(), isBad: false }
    for (const text of readFileSync(settings.record, 'utf8').split('\n')) {
      if (!text) continue
      const line = JSON.parse(text)
      if (line.event === 'start') known.begun.add(line.id)
      if (line.event === 'end') known.ended.add(line.id)
      if (line.event === 'loading') known.loaded.add(line.file)
      if (line.event === 'error') known.told.add(line.name)
      known.isBad ||= line.event === 'error' || line.event === 'failure' || line.outcome === 'failed' || line.outcome === 'error'
    }
    return known
  }

  leave(code) {
    this.finish(this.caught)
    // vitest ends so when it is interrupted.
    if (code > 128) return
    if (code !== 0 && !this.known().isBad) {
      const said = stripVTControlCharacters(String(this.said)).trim()
      const caught = this.caught.map((error) => describe(error).text).join('\n')
      const text = said || caught || 'it does not say why'
      const message = text.split('\n').find((line) => line.trim()).trim()
      this.record.write({ event: 'error', what: 'session', name: 'vitest', message, text })
    }
    this.record.write({ event: 'finish', exit: code })
  }
}

// The object and the name of its function by which vitest finds the files of a run.
function finder(vitest) {
  const { specifications } = vitest
  return specifications
    ? { owner: specifications, name: 'getRelevantTestSpecifications' }
    : { owner: vitest, name: 'globTestFiles' }
}

// What the native ids of the tests of a specification begin with. vitest 1 does not say yet whether it will check types.
function specificationKeys(specification, root) {
  // Until vitest 3 it is an array.
  const project = specification.project ?? specification[0]
  const path = specification.moduleId ?? specification[1]
  const pool = specification.pool ?? specification[2]?.pool
  const kinds = pool ? [pool === 'typescript'] : [false, true]
  return kinds.map((types) => JSON.stringify([project.name ?? project.getName?.() ?? '', types, relative(root, path)]))
}

// The directory of the vitest that calls.
function caller() {
  const found = new Error().stack.match(/file:\/\/\S*\/vitest\/(?=dist\/)/)
  return fileURLToPath(found[0])
}

const role = settings.list ? new Lister() : new Recorder()

export default class Offload {
  onInit(vitest) {
    const home = caller()
    const { version } = JSON.parse(readFileSync(`${home}package.json`, 'utf8'))
    role.onInit({ vitest, home, version })
  }

  // Until vitest 3.
  onFinished(files, errors) {
    return role.finish(errors ?? [])
  }

  // Since vitest 3.
  onTestRunEnd(modules, errors) {
    return role.finish([...errors ?? []])
  }
}
