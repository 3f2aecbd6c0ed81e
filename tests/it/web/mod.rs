//! The web pages over HTTP, against the whole server.

mod delivery;
mod docs;
mod endpoint_list;
mod endpoints;
mod erase;
mod filter_replay;
mod keys;
mod lists;
mod live;
mod login;
mod overview;
mod permissions;
mod portal;
mod portal_embed;
mod portal_language;
mod portal_look;
mod portal_types;
mod portal_walls;
mod search;
mod secrets;
mod verify;
mod workspace_switch;
