// A reporter for vitest 1 to 5. A line in front of this text defines `settings`:
// `list`: a file for the tests that were collected; `pattern`: the `-t` that selects among them;
// `report`: where the built-in JUnit reporter must write, whatever the project configures;
// `wanted`: how many tests of the batch `pattern` must select, at least: a test that it misses would be
// reported as skipped, which nobody could tell from a test that skips itself.
import { writeFileSync } from 'node:fs'
import { relative } from 'node:path'

export default class Offload {
  onInit(vitest) {
    this.vitest = vitest
    if (settings.list) writeFileSync(settings.list, '{"files":[]}')
    if (!settings.report) return
    for (const { options } of vitest.reporters ?? []) {
      if (!options || typeof options !== 'object' || !options.outputFile && !options.classnameTemplate) continue
      options.outputFile = settings.report
      delete options.classnameTemplate
    }
  }

  // Until vitest 3.
  onFinished() {
    this.disown()
    this.write()
  }

  // Since vitest 3.
  onTestRunEnd() {
    this.disown()
    this.write()
  }

  // The JUnit reporter, which comes after this one, calls passed what `bail` kept from running.
  disown() {
    if (!settings.report) return
    const walk = (tasks) => {
      for (const task of tasks) {
        if (task.type === 'suite') walk(task.tasks)
        else if (task.mode === 'run' && !['pass', 'fail', 'skip'].includes(task.result?.state)) {
          task.mode = 'skip'
          task.name += ' (not run)'
        }
      }
    }
    this.vitest.state.getFiles().forEach((file) => walk(file.tasks))
  }

  write() {
    if (!settings.list && !settings.wanted) return
    const pattern = settings.pattern ? new RegExp(settings.pattern) : undefined
    // How vitest joins titles before it applies `-t`.
    const major = parseInt(this.vitest.version ?? '0', 10)
    const first = major < 2 ? ' ' : ''
    const joint = major < 5 ? ' ' : ' > '
    const files = this.vitest.state.getFiles().map((file) => {
      const tests = []
      const walk = (tasks, titles) => {
        for (const task of tasks) {
          const path = [...titles, task.name]
          if (task.type === 'suite') walk(task.tasks, path)
          else if (!pattern || pattern.test(first + path.join(joint))) tests.push(path.join(' > '))
        }
      }
      walk(file.tasks, [])
      let error
      if (file.result?.state === 'fail') {
        error = file.result.errors?.map((each) => each.message).join('\n') || 'it does not load'
      } else if (file.tasks.length === 0) {
        error = 'no test suite found in it'
      }
      return { file: relative(this.vitest.config.root, file.filepath), error, tests }
    })
    if (settings.list) writeFileSync(settings.list, JSON.stringify({ files }))
    const selected = files.reduce((sum, { tests }) => sum + new Set(tests).size, 0)
    if (selected < (settings.wanted ?? 0)) {
      console.error(`${settings.wanted} tests were asked for, but ${settings.pattern} selects ${selected}`)
      process.exitCode = 1
    }
  }
}
