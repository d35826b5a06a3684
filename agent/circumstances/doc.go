// Package circumstances answers what speaks against an update at this moment: people who are logged in, a metered link,
// a battery. It also knows when the administrator of the host wants maintenance to be done, and how to tell people what
// comes. What follows from all this is decided elsewhere.
package circumstances
