// A reporter for vitest 1 to 5. A line in front of this text defines `settings`:
// `list`: a file for the tests that were collected; `pattern`: the `-t` that selects among them; `collection`: a text
// to repeat there;
// `record`: a file to which a batch is recorded; `wanted`: the native ids of its tests; `home`: the working directory
// of the list;
// `merge`: a directory with the coverage of all batches, to be reported as one.
import { readFileSync, readdirSync, realpathSync, writeFileSync } from 'node:fs'
import { relative, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { stripVTControlCharacters } from 'node:util'
import { gunzipSync, gzipSync } from 'node:zlib'
import {
  Record, Text, describe, fileKey, isPlanned, isTypeTest, keyOf, nameOf, nativeIds, outcomeOf,
} from './vitest_runner.mjs'

// How vitest joins titles before it applies `-t`.
function joined(titles, major) {
  return (major < 2 ? ' ' : '') + titles.join(major < 5 ? ' ' : ' > ')
}

// Bytes of a file in one line of the record; without a rest in base64.
const PART = 768 * 1024

const projects = (vitest) => vitest.projects ?? [vitest]

const isSuite = (task) => task.type === 'suite'

class Lister {
  onInit({ vitest, version }) {
    this.vitest = vitest
    this.version = version
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

  facts() {
    // vitest 1 keeps here what the project configured.
    const coverage = this.vitest.server?.config.test?.coverage?.enabled === true
    return { collection: settings.collection, version: this.version, directory: process.cwd(), coverage }
  }

  write(whole, files, errors) {
    writeFileSync(settings.list, JSON.stringify({ whole, ...this.facts(), files, errors }))
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
      const [project, types] = JSON.parse(key)
      const together = types ? `types ${project}` : undefined
      return { key, name, together, path: relative(process.cwd(), file.filepath), error: whyNothing(file), tests }
    })
    const order = ({ path, key }) => `${path}\0${key}`
    const files = all.sort((one, other) => order(one) < order(other) ? -1 : 1)
    // What runs will say it again.
    const again = new Set(files.filter(({ error, tests }) => !error && tests.length).map(({ name }) => name))
    const isTyped = (error) => ['Unhandled Source Error', 'Typecheck Error'].includes(error?.type)
    const told = errors.filter((error) => !isTyped(error) || !files.some(({ together }) => together))
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
    this.cover()
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
    const [file, name] = major < 4 ? ['runners', 'VitestTestRunner'] : ['index', 'TestRunner']
    const quoted = JSON.stringify
    projects(this.vitest).forEach(({ config, vite, server }, index) => {
      if (config.browser?.enabled) return
      // Where an environment is a browser's, vite reads only what it might serve.
      const allowed = (vite ?? server ?? this.vitest.server).config.server.fs.allow
      allowed.push(place('.'), realpathSync(place('.')))
      const [what, where] = config.runner ? ['Base', config.runner] : [`{ ${name} as Base }`, `${home}dist/${file}.js`]
      const text = `import ${what} from ${quoted(where)}\n` +
        `import { recording } from ${quoted(place('vitest_runner.mjs'))}\n` +
        `import settings from ${quoted(place('wanted.mjs'))}\nexport default recording(Base, settings)\n`
      // vitest transforms a `.js` file, as a runner in TypeScript needs it.
      config.runner = place(`runner-${index}.js`)
      writeFileSync(config.runner, text)
    })
  }

  // Keeps the coverage for the end of the run instead of reporting it: no batch alone reaches a threshold.
  cover() {
    const provider = this.vitest.coverageProvider
    if (!provider) return
    const generate = provider.generateCoverage
    provider.generateCoverage = async (context) => {
      const map = await generate.call(provider, { ...context, allTestsRun: false })
      const quoted = (path) => JSON.stringify(`${path}/`).slice(0, -1)
      const [here, home] = [this.place.directory, settings.home ?? this.place.directory].map(quoted)
      const bytes = gzipSync(JSON.stringify(map).replaceAll(here, home) + '\n')
      for (let place = 0; place < bytes.length; place += PART) {
        const content = bytes.subarray(place, place + PART).toString('base64')
        this.record.write({ event: 'data', name: 'coverage', content })
      }
      return map
    }
    provider.reportCoverage = async () => {}
  }

  listen() {
    const { stderr } = process
    const write = stderr.write
    stderr.write = (text, ...rest) => {
      this.said.add(String(text))
      return write.call(stderr, text, ...rest)
    }
    // What goes wrong from here on has a status of its own, beside that of the tests.
    const { vitest } = this
    const close = vitest.close
    vitest.close = (...given) => {
      if (!this.closing) {
        this.closing = { status: process.exitCode ?? 0, said: this.said }
        this.said = new Text()
        process.exitCode = undefined
      }
      return close.apply(vitest, given)
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
      const isTold = known.told.has(nameOf(file, this.root))
      if (isForeign) this.foreign(file)
      else if (!isTold) for (const error of broken) this.tell('collection', file, error)
      // What a file has is known only if it was loaded.
      const key = keyOf(file, this.root)
      const has = new Set(nativeIds(file, this.root).values())
      if (broken.length || !has.size) for (const id of missing) if (fileKey(id) === key) missing.delete(id)
      for (const id of has) missing.delete(id)
    }
    for (const error of this.lost(errors, known)) {
      this.record.write({ event: 'error', ...unhandled(error, this.root) })
    }
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
      const line = { event: 'end', at: this.record.at(), outcome: 'error', message, text }
      for (const id of open) this.record.write({ ...line, id })
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
      const isBad = line.event === 'error' || line.outcome === 'failed' || line.outcome === 'error'
      known.isBad ||= isBad && !line.retried
    }
    return known
  }

  leave(code) {
    this.finish(this.caught)
    // vitest ends so when it is interrupted.
    if (code > 128) return
    const { closing } = this
    if (closing && code !== 0) this.explain(code, this.said)
    const status = code || (closing?.status ?? 0)
    if (status !== 0 && !this.known().isBad) this.explain(status, closing?.said ?? this.said)
    this.record.write({ event: 'finish', exit: status })
    process.exitCode = status
  }

  // Records that vitest failed for a reason that only its output tells.
  explain(status, said) {
    const caught = this.caught.map((error) => describe(error).text).join('\n')
    const text = stripVTControlCharacters(String(said)).trim() || caught || `it ended with exit code ${status} and does not say why`
    const message = text.split('\n').find((line) => /^[^⎯]*\w[^⎯]*$/.test(line))?.trim()
    this.record.write({ event: 'error', what: 'session', name: 'vitest', message, text })
  }
}

// The object and the name of its function by which vitest finds the files of a run.
function finder(vitest) {
  const { specifications } = vitest
  return specifications
    ? { owner: specifications, name: 'getRelevantTestSpecifications' }
    : { owner: vitest, name: 'globTestFiles' }
}

// What the native ids of the tests of a specification begin with. vitest 1 does not say yet whether it will check
// types.
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

// Runs nothing, and has vitest report the coverage of all batches.
class Merger {
  onInit({ vitest }) {
    const { owner, name } = finder(vitest)
    owner[name] = async () => []
    vitest.logger.printNoTestFound = () => {}
    const provider = vitest.coverageProvider
    const make = provider.createCoverageMap
    provider.createCoverageMap = () => {
      // Only the first one is that of the run.
      provider.createCoverageMap = make
      const map = make.call(provider)
      for (const file of readdirSync(settings.merge)) {
        const lines = gunzipSync(readFileSync(`${settings.merge}/${file}`)).toString().split('\n')
        for (const line of lines.filter(Boolean)) map.merge(JSON.parse(line))
      }
      return map
    }
    const report = provider.reportCoverage
    provider.reportCoverage = async (...given) => {
      await report.apply(provider, given)
      // vitest 2 forgets then that a threshold was not met, since there are no tests.
      const code = process.exitCode
      process.prependListener('exit', () => { process.exitCode ||= code })
    }
  }

  finish() {}
}

const role = settings.list ? new Lister() : settings.merge ? new Merger() : new Recorder()

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
