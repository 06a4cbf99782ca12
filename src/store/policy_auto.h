/* What the policy `auto` knows about the policies it chooses from. */
#ifndef SLUICE_STORE_POLICY_AUTO_H
#define SLUICE_STORE_POLICY_AUTO_H

#include "store/ghost.h"

/* The policy in charge; POLICY_AUTO when p is not `auto`. */
enum policy_kind policy_leader(const struct policy *p);
/* How often the leader changed; 0 when p is not `auto`. */
uint64_t policy_switches(const struct policy *p);
/* The ghost of a single kind, or NULL when p is not `auto`. */
const struct ghost *policy_ghost(const struct policy *p, enum policy_kind kind);
/* Memory of the policies and ghosts inside `auto`; 0 when p is not `auto`. */
size_t policy_auto_bytes(const struct policy *p);

#endif
