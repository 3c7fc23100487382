/** The first of the ports at which the fake opencodes of a LAN answer. */
export const FIRST_LIVE_PORT = 21_000;
