// Package verify decides whether bytes may run on this host: bytes in, verdict
// out. It opens no file and no connection.
package verify
