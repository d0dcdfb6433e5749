// Package imaging owns what a tenant boots, as bytes: the signed manifest, its 4 MiB chunks, packing, the daemon's
// library, the verified write to a disk, and the seed.
//
// The flow: Pack makes a folder from a raw disk, offline, with the author's key. The daemon takes it into a Library,
// chunk by chunk, each checked. On the node Write fetches from a Source, checks every chunk's SHA-256 once, writes,
// reads everything back, and only then writes the first MiB, so a cut write never boots. Seed adds the tenant's data as
// a NoCloud volume. Signatures are minisign (Ed25519) over the manifest's exact bytes; the SHA-256 of those bytes is
// the image's digest, its only name between programs.
//
// It does not know which node, which tenant or why now; it mounts nothing and runs no program.
package imaging
