package api

import "github.com/hostler-project/hostler/inventory"

// redact is a public record as the caller may see it. Tenants are each other's competitors: whose a node is, and every
// sentence that could name them, is shown to its tenant and to our own people only.
func redact(p inventory.Public, who Identity) inventory.Public {
	if who.Role != RoleRental || p.Tenant != "" && p.Tenant == who.Tenant {
		return p
	}
	p.Tenant, p.Reservation, p.Instance, p.Ready, p.Detail = "", "", "", false, ""
	if p.Rentable {
		return p
	}
	p.Reasons = []string{"it is " + string(p.State)}
	if p.State == inventory.Ready {
		p.Reasons = []string{"it is held back by the site"}
	}
	return p
}
