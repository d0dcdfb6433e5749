package inventory

import (
	"fmt"
	"strings"
)

// Root is where everything of ours begins in the store.
const Root = "/hostler/v1/"

// The prefixes, as design.md section 6 lays them out; every key of the product is built by a function of this file.
const (
	PrefixMeta         = Root + "meta/"
	PrefixNodes        = Root + "nodes/"
	PrefixPublic       = Root + "public/"
	PrefixAvail        = Root + "avail/"
	PrefixHealth       = Root + "health/"
	PrefixHistory      = Root + "history/"
	PrefixClaims       = Root + "claims/"
	PrefixReservations = Root + "reservations/"
	PrefixInstances    = Root + "instances/"
	PrefixSealed       = Root + "sealed/"
	PrefixWishes       = Root + "wishes/"
	PrefixSessions     = Root + "sessions/"
	PrefixCerts        = Root + "certs/"
	PrefixTests        = Root + "tests/"
	PrefixSKUs         = Root + "skus/"
	PrefixExpected     = Root + "expected/"
	PrefixImages       = Root + "images/"
	PrefixIDs          = Root + "ids/"
	PrefixBMC          = Root + "bmc/"
	PrefixCredentials  = Root + "credentials/"
	PrefixTokens       = Root + "tokens/"
	PrefixShards       = Root + "shards/"
	PrefixReplicas     = Root + "replicas/"
	PrefixPolicies     = Root + "policies/"
	PrefixBreakers     = Root + "breakers/"
	KeySchema          = PrefixMeta + "schema"
	KeySite            = PrefixMeta + "site"
	KeyEra             = PrefixMeta + "era"
	KeyBackup          = PrefixMeta + "backup"
	KeyLimits          = PrefixPolicies + "limits"
	KeyBudget          = PrefixPolicies + "budget"
	KeyBreaker         = PrefixBreakers + "site"
)

func KeySpec(node string) string    { return PrefixNodes + node + "/spec" }
func KeyState(node string) string   { return PrefixNodes + node + "/state" }
func KeyFacts(node string) string   { return PrefixNodes + node + "/facts" }
func KeyPublic(node string) string  { return PrefixPublic + node }
func KeyAvail(node string) string   { return PrefixAvail + node }
func KeyClaim(node string) string   { return PrefixClaims + node }
func KeySession(node string) string { return PrefixSessions + node }

func KeyHealth(node, source string) string    { return PrefixHealth + node + "/" + source }
func KeyReservation(tenant, id string) string { return PrefixReservations + tenant + "/" + id }
func KeyInstance(id string) string            { return PrefixInstances + id }
func KeySealed(instance string) string        { return PrefixSealed + instance }
func KeyWish(node, id string) string          { return PrefixWishes + node + "/" + id }
func KeyTest(node, id string) string          { return PrefixTests + node + "/" + id }
func KeySKU(name string) string               { return PrefixSKUs + name }
func KeyImage(digest string) string           { return PrefixImages + digest }
func KeyCredential(ref string) string         { return PrefixCredentials + ref }
func KeyToken(hash string) string             { return PrefixTokens + hash }
func KeyShard(n int) string                   { return fmt.Sprintf("%s%02d", PrefixShards, n) }
func KeyShardMark(n int) string               { return fmt.Sprintf("%s%02d/mark", PrefixShards, n) }
func KeyReplica(id string) string             { return PrefixReplicas + id }

// KeyID is where one identity of a node is registered. Kinds are serial, uuid, mac, ip and name.
func KeyID(kind, value string) string { return PrefixIDs + kind + "/" + strings.ToLower(value) }

// KeyHistory and KeyCert carry their number with leading zeros, so that byte order is number order.
func KeyHistory(node string, seq int64) string {
	return fmt.Sprintf("%s%s/%012d", PrefixHistory, node, seq)
}

// KeyCert is the certificate of one wipe of a node.
func KeyCert(node string, wipe int64) string {
	return fmt.Sprintf("%s%s/%012d", PrefixCerts, node, wipe)
}

// Parts splits a key below Root: Parts("/hostler/v1/nodes/n-1/spec") is ["nodes", "n-1", "spec"]; nil for foreign keys.
func Parts(key string) []string {
	rest, ok := strings.CutPrefix(key, Root)
	if !ok {
		return nil
	}
	return strings.Split(rest, "/")
}

// Shards is the number of shards that nodes are hashed into.
const Shards = 64

// Shard is the shard of a node: FNV-1a of its id.
func Shard(node string) int {
	h := uint32(2166136261)
	for i := 0; i < len(node); i++ {
		h = (h ^ uint32(node[i])) * 16777619
	}
	return int(h % Shards)
}
