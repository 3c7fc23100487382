import { TOOL_WORDS, type ReaderWords } from '../model/advice.ts';

/** The advice of messages in the words of the page, whose reader acts by buttons. */
export const PAGE_WORDS: ReaderWords = {
  ...TOOL_WORDS,
  again: 'try again',
  look: 'look in the list',
  refresh: 'look in the list',
  status: 'the list',
  sessions: 'the list of sessions',
  sessionsOf: () => 'the list of sessions',
  respond: 'the buttons there',
  respondTo: () => 'the buttons there',
  follow: () => 'open the session',
  sendAnyway: 'send when it is done, or stop it first',
  session: 'a session',
  request: 'the request',
  messageKey: 'the id of the message',
};
