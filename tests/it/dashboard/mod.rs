//! Pages from outside: over HTTP, against the whole server.

mod docs;
