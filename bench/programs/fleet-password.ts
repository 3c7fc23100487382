/** The password of every OpenCode 2 of a fleet. */
export const FLEET_PASSWORD = 'of the fleet';
