// Package circumstances answers what speaks against an update at this moment: people who are logged in, a metered link,
// a battery; and when the administrator wants maintenance to be done. What follows from it is decided elsewhere.
package circumstances
