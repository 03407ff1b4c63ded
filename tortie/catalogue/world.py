"""A small cluster, from which the examples are made: two nodes, two pods, and one object of every kind."""

MANIFESTS = """\
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {team: shop}}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: db, namespace: shop, labels: {role: storage}}
---
apiVersion: projectcalico.org/v3
kind: Node
metadata: {name: node1, labels: {rack: a}}
spec: {bgp: {ipv4Address: 10.0.0.11/24, asNumber: 64512}}
---
apiVersion: projectcalico.org/v3
kind: Node
metadata: {name: node2, labels: {rack: b}}
spec: {bgp: {ipv4Address: 10.0.9.12/24}}
---
apiVersion: v1
kind: Pod
metadata: {name: db, namespace: shop, labels: {app: db}}
spec:
  nodeName: node1
  serviceAccountName: db
  containers: [{name: postgres, image: postgres, ports: [{name: sql, containerPort: 5432}]}]
---
apiVersion: v1
kind: Pod
metadata: {name: api, namespace: shop, labels: {app: api}}
spec: {nodeName: node2, containers: [{name: api, image: api}]}
---
apiVersion: v1
kind: Service
metadata: {name: db, namespace: shop}
spec: {clusterIPs: [10.96.0.20], selector: {app: db}, ports: [{name: sql, port: 5432, nodePort: 30432}]}
status: {loadBalancer: {ingress: [{ip: 198.51.100.7}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: db-1, namespace: shop, labels: {kubernetes.io/service-name: db}}
addressType: IPv4
endpoints: [{addresses: [10.244.76.129]}]
ports: [{name: sql, port: 5432}]
---
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: pods}
spec: {cidr: 10.244.0.0/16, blockSize: 26, vxlanMode: CrossSubnet, natOutgoing: true}
---
apiVersion: projectcalico.org/v3
kind: IPReservation
metadata: {name: routers}
spec: {reservedCIDRs: [10.244.0.0/30]}
---
apiVersion: projectcalico.org/v3
kind: IPAMConfiguration
metadata: {name: default}
spec: {strictAffinity: true, ipCooldownSeconds: 30}
---
apiVersion: projectcalico.org/v3
kind: FelixConfiguration
metadata: {name: default}
spec: {vxlanPort: 4789, wireguardEnabled: true}
---
apiVersion: projectcalico.org/v3
kind: BGPConfiguration
metadata: {name: default}
spec:
  asNumber: 64512
  nodeToNodeMeshEnabled: true
  communities: [{name: pods, value: "64512:100"}]
  prefixAdvertisements: [{cidr: 10.244.0.0/16, communities: [pods]}]
---
apiVersion: projectcalico.org/v3
kind: BGPFilter
metadata: {name: only-pods}
spec: {exportV4: [{action: Accept, matchOperator: In, cidr: 10.244.0.0/16}, {action: Reject}]}
---
apiVersion: projectcalico.org/v3
kind: BGPPeer
metadata: {name: top-of-rack}
spec: {nodeSelector: rack == 'a', peerIP: 10.0.0.1, asNumber: 64600, filters: [only-pods]}
---
apiVersion: projectcalico.org/v3
kind: Tier
metadata: {name: security}
spec: {order: 100}
---
apiVersion: projectcalico.org/v3
kind: Profile
metadata: {name: host-ssh}
spec: {ingress: [{action: Allow, protocol: TCP, destination: {ports: [22]}}]}
---
apiVersion: projectcalico.org/v3
kind: NetworkSet
metadata: {name: offices, namespace: shop, labels: {kind: office}}
spec: {nets: [192.0.2.0/24]}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkSet
metadata: {name: known-bad, labels: {kind: bad}}
spec: {nets: [198.51.100.0/24]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: db, namespace: shop}
spec:
  podSelector: {matchLabels: {app: db}}
  ingress: [{from: [{podSelector: {matchLabels: {app: api}}}], ports: [{protocol: TCP, port: 5432}]}]
---
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: no-metadata-server}
spec:
  tier: Admin
  priority: 10
  subject: {namespaces: {}}
  egress: [{name: metadata, action: Deny, to: [{networks: [169.254.169.254/32]}]}]
---
apiVersion: policy.networking.k8s.io/v1alpha1
kind: AdminNetworkPolicy
metadata: {name: monitoring}
spec:
  priority: 20
  subject: {namespaces: {}}
  ingress: [{name: scrape, action: Allow, from: [{namespaces: {matchLabels: {team: monitoring}}}]}]
---
apiVersion: policy.networking.k8s.io/v1alpha1
kind: BaselineAdminNetworkPolicy
metadata: {name: default}
spec:
  subject: {namespaces: {}}
  ingress: [{name: closed, action: Deny, from: [{namespaces: {}}]}]
---
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: security.audit, namespace: shop}
spec:
  tier: security
  order: 10
  selector: app == 'db'
  ingress: [{action: Log}, {action: Pass}]
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: security.known-bad}
spec:
  tier: security
  order: 5
  selector: all()
  types: [Egress]
  egress: [{action: Deny, destination: {selector: kind == 'bad'}}, {action: Pass}]
---
apiVersion: projectcalico.org/v3
kind: StagedKubernetesNetworkPolicy
metadata: {name: closed, namespace: shop}
spec: {podSelector: {}, policyTypes: [Ingress]}
---
apiVersion: projectcalico.org/v3
kind: StagedNetworkPolicy
metadata: {name: security.only-offices, namespace: shop}
spec:
  tier: security
  order: 20
  selector: app == 'api'
  ingress: [{action: Allow, source: {selector: kind == 'office'}}]
---
apiVersion: projectcalico.org/v3
kind: StagedGlobalNetworkPolicy
metadata: {name: security.no-udp}
spec: {tier: security, order: 30, selector: all(), egress: [{action: Deny, protocol: UDP}]}
---
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: node1-eth0, labels: {zone: outside}}
spec: {node: node1, interfaceName: eth0, expectedIPs: [10.0.0.11], profiles: [host-ssh]}
"""
