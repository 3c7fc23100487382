// The requests of one session. A settled card keeps its height while another is open, so that no button moves under a finger.
import { makeAskCard } from './asks.js';
import { announce, element } from './elements.js';

const SETTLED_ALREADY = 'The request of this link is settled already.';

/** Puts the cards into `talk`. `wanted` is the request that a link named. */
export function makeAskList(talk, { instance, session, wanted }) {
  const cards = new Map();
  const unlisted = new Set();
  let isWanted = wanted !== undefined;

  function set(list, canDrive) {
    const ids = new Set(list.map(({ id }) => id));
    for (const card of cards.values()) {
      if (ids.has(card.id)) continue;
      card.settleElsewhere();
      // If it is listed again, it gets a new card.
      unlisted.add(card.id);
    }
    const fresh = list.filter(({ id }) => !cards.has(id) || unlisted.delete(id));
    if (fresh.length > 0) dropFolded();
    for (const ask of fresh) {
      cards.get(ask.id)?.element.remove();
      const card = makeAskCard(ask, { instance, session, canDrive, onSettled: fold });
      cards.set(ask.id, card);
      talk.cards.append(card.element);
      if (!isWanted) announce(`${card.element.firstElementChild.textContent}: ${card.summary}`);
    }
    if (fresh.length > 0) talk.keepPlace();
    if (isWanted) showWanted(cards.get(wanted));
    else if (fresh.length > 0 && talk.isAtEnd) requestAnimationFrame(() => cards.get(fresh[0].id).show());
  }

  /** Shows the wanted card, or says that its request is settled. */
  function showWanted(card) {
    isWanted = false;
    if (card === undefined) {
      talk.cards.append(element('p', { class: 'result', text: SETTLED_ALREADY }));
      announce(SETTLED_ALREADY);
    }
    requestAnimationFrame(() => {
      talk.toEnd();
      card?.show();
      card?.element.focus({ preventScroll: true });
    });
  }

  function fold() {
    if ([...cards.values()].some(({ isSettled }) => !isSettled)) return;
    for (const card of cards.values()) card.element.classList.add('folded');
    talk.keepPlace();
  }

  /** Removes the folded cards. */
  function dropFolded() {
    for (const folded of talk.cards.querySelectorAll('.folded')) {
      if (folded.contains(document.activeElement)) talk.focus();
      folded.remove();
    }
  }

  return { set, dropFolded };
}
