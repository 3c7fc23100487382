/** The first port of a LAN's fake opencodes. */
export const FIRST_LIVE_PORT = 21_000;
