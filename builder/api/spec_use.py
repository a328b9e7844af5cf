"""Which operations of RunPod's REST API v2 the builder uses, by which method, and why it leaves the others alone."""

from __future__ import annotations

__all__ = ["USED", "WAIVED"]

USED = {
    "listPods": "list_pods",
    "createPod": "create_pod",
    "getPod": "get_pod",
    "updatePod": "update_pod",
    "deletePod": "delete_pod",
    "podAction": "act",
    "getPodLogs": "logs",
    "listGpuTypes": "gpu_types",
    "listPodBilling": "pod_billing",
    "listEndpoints": "endpoints",
    "listNetworkVolumes": "network_volumes",
    "listRegistries": "registries",
    "createRegistry": "create_registry",
}
"""operationId: method of `builder.api.control_plane.ControlPlane`."""

_CLUSTERS = "clusters of machines: one GPU serves, so none is offered"
_ENDPOINTS = "comes with the verbs for serverless endpoints"
_TEMPLATES = "pods are made from the image and settings at hand; a template would be a second truth"
_VOLUMES = "a volume is made once, in the console; the builder lists what costs and mounts one by its id"
_DELEGATIONS = "delegated access to a registry of AWS: comes with EC2, if asked for"
_SSH = "pods serve speech and are looked into by logs; the account's SSH keys are not ours to change"
_ONE_GPU = "the list of GPU types has all it tells"
_CPUS = "pods without a GPU are not offered"
_DATA_CENTERS = "the list of GPU types has the stock by data center"
_BILLING = "only pods are made here; check-all prices the rest from what stands"
WAIVED = {
    "getSshKeys": _SSH,
    "updateSshKeys": _SSH,
    "listClusters": _CLUSTERS,
    "createCluster": _CLUSTERS,
    "getCluster": _CLUSTERS,
    "updateCluster": _CLUSTERS,
    "deleteCluster": _CLUSTERS,
    "listClusterPods": _CLUSTERS,
    "createEndpoint": _ENDPOINTS,
    "getEndpoint": _ENDPOINTS,
    "updateEndpoint": _ENDPOINTS,
    "deleteEndpoint": _ENDPOINTS,
    "listEndpointWorkers": _ENDPOINTS,
    "listEndpointReleases": _ENDPOINTS,
    "getWorkerLogs": _ENDPOINTS,
    "listTemplates": _TEMPLATES,
    "createTemplate": _TEMPLATES,
    "getTemplate": _TEMPLATES,
    "updateTemplate": _TEMPLATES,
    "deleteTemplate": _TEMPLATES,
    "listPublicTemplates": _TEMPLATES,
    "createNetworkVolume": _VOLUMES,
    "getNetworkVolume": _VOLUMES,
    "updateNetworkVolume": _VOLUMES,
    "deleteNetworkVolume": _VOLUMES,
    "getRegistry": "the list has all it tells",
    "deleteRegistry": "a credential may be in use by pods elsewhere; the console shows by which",
    "listDelegations": _DELEGATIONS,
    "createDelegation": _DELEGATIONS,
    "revokeDelegation": _DELEGATIONS,
    "getGpuType": _ONE_GPU,
    "listCpuTypes": _CPUS,
    "getCpuType": _CPUS,
    "listDataCenters": _DATA_CENTERS,
    "getDataCenter": _DATA_CENTERS,
    "listBilling": _BILLING,
    "listServerlessBilling": _BILLING,
    "listEndpointBilling": "costs of RunPod's own public endpoints, which are not used",
    "listNetworkVolumeBilling": _BILLING,
    "listClusterBilling": _CLUSTERS,
}
"""operationId: why no method of ours calls it."""
