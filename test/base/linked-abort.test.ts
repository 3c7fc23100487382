import { getEventListeners } from 'node:events';

import { expect, test } from 'vitest';

import { LinkedAbort } from '../../src/base/linked-abort.ts';

test('it aborts with whichever signal aborts first, for its reason', () => {
  const [one, other] = [new AbortController(), new AbortController()];
  const linked = new LinkedAbort(one.signal, undefined, other.signal);
  expect(linked.signal.aborted).toBe(false);
  other.abort('enough');
  one.abort('too late');
  expect(linked.signal.reason).toBe('enough');
});

test('it aborts at once with a signal that has aborted already', () => {
  expect(new LinkedAbort(new AbortController().signal, AbortSignal.abort('before')).signal.reason).toBe('before');
});

test('its own abort does not abort the signals', () => {
  const controller = new AbortController();
  const linked = new LinkedAbort(controller.signal);
  linked.abort('done');
  expect([linked.signal.reason, controller.signal.aborted]).toEqual(['done', false]);
});

test('ending aborts it and leaves no listener at the signals', () => {
  const controller = new AbortController();
  const linked = new LinkedAbort(controller.signal);
  expect(getEventListeners(controller.signal, 'abort')).toHaveLength(1);
  linked.end();
  expect(linked.signal.aborted).toBe(true);
  expect(getEventListeners(controller.signal, 'abort')).toHaveLength(0);
});
