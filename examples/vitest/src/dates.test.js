import { expect, test } from 'vitest'

test('a leap day exists in a leap year', () => {
  expect(new Date(Date.UTC(2024, 1, 29)).getUTCMonth()).toBe(1)
})

test('months overflow into the next year', () => {
  expect(new Date(Date.UTC(2024, 12, 1)).getUTCFullYear()).toBe(2025)
})
