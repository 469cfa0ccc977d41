# Where the state of staging is kept: a storage account in its subscription, made
# beforehand (README.md), which only those who deploy staging can read.
resource_group_name  = "rg-tallyhouse-staging-state"
storage_account_name = "thstatestaging"
container_name       = "state"
key                  = "tallyhouse.tfstate"
