# Where the state of dev is kept: a storage account in its subscription, made
# beforehand (README.md), which only those who deploy dev can read.
resource_group_name  = "rg-tallyhouse-dev-state"
storage_account_name = "thstatedev"
container_name       = "state"
key                  = "tallyhouse.tfstate"
