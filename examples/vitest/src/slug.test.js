import { describe, expect, it } from 'vitest'
import { slug } from './slug.js'

describe('slug', () => {
  it('joins words', () => expect(slug('One  two')).toBe('one-two'))
  it('drops marks', () => expect(slug('Why, then?')).toBe('why-then'))
  it.each(['', '!', '--'])('gives nothing for %j', (title) => expect(slug(title)).toBe(''))
  it.skip('keeps letters of other alphabets', () => expect(slug('né')).toBe('né'))
})
